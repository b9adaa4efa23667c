"""How a run is trained. The defaults are the published CGS-GAN settings; small runs override them in their yaml."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from cgsgan.metrics.extractors import ExtractorName
from cgsgan.training.augmentation import AugmentationConfig
from cgsgan.training.growth import GrowthConfig
from cgsgan.training.guards import GuardConfig
from cgsgan.training.planes import PlaneTrainingConfig
from cgsgan.training.poses import PoseConfig
from cgsgan.training.surface import SurfaceTrainingConfig


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam for both networks.

    Attributes:
        generator_lr: learning rate of the generator.
        position_lr_multiplier: factor on it for the generator's position parameters (points and xyz heads).
        discriminator_lr: learning rate of the discriminator, before the lazy-regularisation factor
            interval / (interval + 1) of StyleGAN2.
        beta2: second-moment decay; the first is 0 in both networks.
        generator_clip_norm: clip the generator's whole gradient to this norm, once, after averaging over views and
            processes. 0 is off.
        discriminator_clip_norm: the same for the discriminator.
        decay_kimg: both rates fall linearly over this last part of the run.
        decay_final: ... to this fraction.
    """

    generator_lr: float = 0.0025
    position_lr_multiplier: float = 0.01
    discriminator_lr: float = 0.002
    beta2: float = 0.99
    generator_clip_norm: float = 20.0
    discriminator_clip_norm: float = 5.0
    decay_kimg: float = 0.0
    decay_final: float = 0.0

    def __post_init__(self) -> None:
        """Refuse rates that would not descend.

        Raises:
            ValueError: names the field, the value and what is allowed.
        """
        for name in ("generator_lr", "discriminator_lr", "position_lr_multiplier"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"training.optimizer.{name}: expected a finite number >= 0, got {getattr(self, name)}")
        for name in ("generator_clip_norm", "discriminator_clip_norm", "decay_kimg"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"training.optimizer.{name}: expected a number >= 0, got {getattr(self, name)}")
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"training.optimizer.beta2: expected one in [0, 1), got {self.beta2}")
        if not 0 <= self.decay_final <= 1:
            raise ValueError(f"training.optimizer.decay_final: expected a share, [0, 1], got {self.decay_final}")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the objective.

    Attributes:
        objective: "non_saturating", as published, or "relativistic": the discriminator learns to rank a real picture
            above a fake one, in pairs, and the generator the opposite (R3GAN).
        r1_gamma: weight of the R1 penalty; the loss is gamma / 2 * |gradient|^2 for images in [-1, 1].
        r2_gamma: the same for fake images. None: ``r1_gamma`` for the relativistic objective, which needs it, else 0.
        r1_interval: steps between penalties (lazy regularisation); the penalty is multiplied by it.
        knn_weight: weight of the neighbour distances of the coarsest anchors.
        knn_neighbors: how many neighbours count.
        center_weight: weight of the centre of mass of the coarsest anchors.
        pose_weight: weight of the mean squared error (radians) of what ``discriminator.pose_head`` tells of fakes, for
            both players; without that head it does nothing. The default is pi-GAN's.
        latent_weight: the same for ``discriminator.latent_head``.
        blur_sigma: blur of all discriminator inputs at the start, pixels.
        blur_fade_kimg: it has faded out after this many images. 0 is off.
    """

    objective: Literal["non_saturating", "relativistic"] = "non_saturating"
    r1_gamma: float = 1.0
    r2_gamma: float | None = None
    r1_interval: int = 16
    knn_weight: float = 20.0
    knn_neighbors: int = 64
    center_weight: float = 1.0
    pose_weight: float = 15.0
    latent_weight: float = 1.0
    blur_sigma: float = 10.0
    blur_fade_kimg: float = 200.0

    def __post_init__(self) -> None:
        """Refuse weights that would reward what they penalise.

        Raises:
            ValueError: names the field, the value and what is allowed.
        """
        names = (
            "r1_gamma",
            "knn_weight",
            "center_weight",
            "pose_weight",
            "latent_weight",
            "blur_sigma",
            "blur_fade_kimg",
        )
        for name in names if self.r2_gamma is None else (*names, "r2_gamma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"training.loss.{name}: expected a finite number >= 0, got {getattr(self, name)}")
        for name in ("r1_interval", "knn_neighbors"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.loss.{name}: expected >= 1, got {getattr(self, name)}")

    def resolve_r2_gamma(self) -> float:
        """The weight of the penalty on fakes."""
        if self.r2_gamma is not None:
            return self.r2_gamma
        return self.r1_gamma if self.objective == "relativistic" else 0.0


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Length, batch, views and bookkeeping of a run.

    Attributes:
        kimg: thousands of real images to show the discriminator.
        start_from: a run folder or checkpoint of another run, whose networks this one starts from: at the same size, or
            grown to a larger one (see ``cgsgan.growing``). Everything else begins anew: optimisers, schedules (the blur
            too), images seen. Once this run has a checkpoint of its own, the path is not looked at any more.
        max_minutes: stop cleanly after this much wall time if the images are not through by then. 0 is off.
        batch_size: scenes per step, over all processes.
        accumulate: make each update from so many parts of a process's share of the batch, one after the other: the
            same gradients with the memory of one part. A part must hold whole minibatch-std groups.
        views_per_scene: views V of every scene in the generator's step; gradients are averaged at the Gaussians.
        gradient_averaging: off, every view has a latent of its own: V times as many scenes, each seen from one camera.
            As many pictures judge the generator per update, but none of its scenes from several sides. It runs V times.
        views_apart: each view of a scene is judged in a call of its own, so that a minibatch-std group holds as many
            identities as pictures (CGS-GAN's fix). Off, all views are judged in one call and a group holds several
            views of one identity; memory grows with V.
        backgrounds: of real and fake pictures: a random colour for each, or white for all.
        style_mixing: share of scenes whose later style rows, from a random one on, come from a second latent.
        reuse_fakes: the discriminator's step takes the pictures of the generator's step (one view of each, in turn)
            instead of generating new ones: about a quarter faster, and equally good in small runs.
        optimizer: see OptimizerConfig.
        loss: see LossConfig.
        augmentation: see AugmentationConfig.
        planes: see PlaneTrainingConfig.
        growth: see GrowthConfig.
        poses: where the cameras of fakes come from, see PoseConfig.
        surface: of tri-planes of signed distance, see SurfaceTrainingConfig.
        ema_halflife_kimg: half-life of the averaged generator.
        ema_slow_halflife_kimg: half-life of a second averaged generator (pi-GAN keeps two); name its file in a
            checkpoint, ``generator_slow.safetensors``, to look at it or measure it. None: there is none.
        ema_rampup: at most this fraction of the images seen so far.
        mixed_precision: Accelerate's word for autocast of the generator; fp16 is not offered for it. The discriminator
            has its own (``discriminator.half_precision_blocks``).
        tf32: let float32 products on a GPU round their factors to 11 bits; published networks were trained without.
        compile: ``torch.compile`` for both networks, but the R1 penalty. Needs a compiler; first steps take minutes.
        seed: of weights, data order and latents.
        log_kimg: a line in the console and in log.jsonl.
        sample_kimg: a contact sheet of the averaged generator.
        checkpoint_kimg: a checkpoint to resume from.
        keep_checkpoints: older ones are removed beyond this number. 0 keeps all.
        milestone_kimg: the first checkpoint at or after every multiple of this is kept for ever. 0 is off.
        evaluate_kimg: score the averaged generator this often, and at the end, and save a checkpoint with it; the best
            one is never removed. 0 is off.
        evaluate_count: generated pictures of a score, and real ones at most.
        evaluate_features: ``random`` needs no weights (the score is ``frd``); see ``cgsgan evaluate``.
        evaluate_weights: weight file of other features; None is a download.
        guard: what stops a run that has gone wrong.
        trackers: also report to these, through Accelerate; console, log.jsonl and curves.png are always there.
    """

    kimg: float = 15000.0
    start_from: str | None = None
    max_minutes: float = 0.0
    batch_size: int = 32
    accumulate: int = 1
    views_per_scene: int = 4
    gradient_averaging: bool = True
    views_apart: bool = True
    backgrounds: Literal["random", "white"] = "random"
    style_mixing: float = 0.0
    reuse_fakes: bool = False
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    planes: PlaneTrainingConfig = field(default_factory=PlaneTrainingConfig)
    growth: GrowthConfig = field(default_factory=GrowthConfig)
    poses: PoseConfig = field(default_factory=PoseConfig)
    surface: SurfaceTrainingConfig = field(default_factory=SurfaceTrainingConfig)
    ema_halflife_kimg: float = 10.0
    ema_slow_halflife_kimg: float | None = None
    ema_rampup: float = 0.05
    mixed_precision: Literal["no", "bf16"] = "no"
    tf32: bool = False
    compile: bool = False
    seed: int = 0
    log_kimg: float = 4.0
    sample_kimg: float = 200.0
    checkpoint_kimg: float = 200.0
    keep_checkpoints: int = 3
    milestone_kimg: float = 0.0
    evaluate_kimg: float = 0.0
    evaluate_count: int = 2048
    evaluate_features: ExtractorName = "random"
    evaluate_weights: str | None = None
    guard: GuardConfig = field(default_factory=GuardConfig)
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that no run can use.

        Raises:
            ValueError: names the field, the value and what is allowed.
        """
        positive = ("kimg", "batch_size", "accumulate", "views_per_scene", "log_kimg", "sample_kimg", "checkpoint_kimg")
        for name in positive:
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"training.{name}: expected a finite number > 0, got {value}")
        if self.evaluate_kimg < 0 or self.evaluate_count < 8:
            raise ValueError(
                "training: expected evaluate_kimg >= 0 and evaluate_count >= 8, got "
                f"{self.evaluate_kimg} and {self.evaluate_count}"
            )
        slow = self.ema_slow_halflife_kimg
        if slow is not None and not self.ema_halflife_kimg < slow < float("inf"):
            raise ValueError(
                "training.ema_slow_halflife_kimg: expected more than ema_halflife_kimg, "
                f"{self.ema_halflife_kimg:g}, or null, got {slow}"
            )
        if self.loss.r1_interval < 1:
            raise ValueError(f"training.loss.r1_interval: expected >= 1, got {self.loss.r1_interval}")
        if not 0 <= self.style_mixing <= 1:
            raise ValueError(f"training.style_mixing: expected a share in [0, 1], got {self.style_mixing}")
        if self.loss.objective == "relativistic" and self.augmentation.mode == "adaptive":
            raise ValueError(
                "training.augmentation.mode: adaptive goes by the sign of D(real), which means nothing to a "
                "relativistic discriminator; use fixed"
            )
        if self.loss.objective == "relativistic" and self.accumulate > 1:
            raise ValueError(
                "training.accumulate: a relativistic discriminator judges fakes and reals together; expected 1, got "
                f"{self.accumulate}"
            )
