"""How a run is trained. The defaults are the published CGS-GAN settings; small runs override them in their yaml."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cgsgan.metrics.extractors import ExtractorName
from cgsgan.training.augmentation import AugmentationConfig
from cgsgan.training.guards import GuardConfig


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


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the objective.

    Attributes:
        r1_gamma: weight of the R1 penalty; the loss is gamma / 2 * |gradient|^2 for images in [-1, 1].
        r1_interval: steps between penalties (lazy regularisation); the penalty is multiplied by it.
        knn_weight: weight of the neighbour distances of the coarsest anchors.
        knn_neighbors: how many neighbours count.
        center_weight: weight of the centre of mass of the coarsest anchors.
        blur_sigma: blur of all discriminator inputs at the start, pixels.
        blur_fade_kimg: it has faded out after this many images. 0 is off.
    """

    r1_gamma: float = 1.0
    r1_interval: int = 16
    knn_weight: float = 20.0
    knn_neighbors: int = 64
    center_weight: float = 1.0
    blur_sigma: float = 10.0
    blur_fade_kimg: float = 200.0


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Length, batch, views and bookkeeping of a run.

    Attributes:
        kimg: thousands of real images to show the discriminator.
        max_minutes: stop cleanly after this much wall time if the images are not through by then. 0 is off.
        batch_size: scenes per step, over all processes.
        accumulate: make each update from so many parts of a process's share of the batch, one after the other: the
            same gradients with the memory of one part. A part must hold whole minibatch-std groups.
        views_per_scene: views V of every scene in the generator's step; gradients are averaged at the Gaussians.
        reuse_fakes: the discriminator's step takes the pictures of the generator's step (one view of each, in turn)
            instead of generating new ones: about a quarter faster, and equally good in small runs.
        optimizer: see OptimizerConfig.
        loss: see LossConfig.
        augmentation: see AugmentationConfig.
        ema_halflife_kimg: half-life of the averaged generator.
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
    max_minutes: float = 0.0
    batch_size: int = 32
    accumulate: int = 1
    views_per_scene: int = 4
    reuse_fakes: bool = False
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    ema_halflife_kimg: float = 10.0
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
        if self.loss.r1_interval < 1:
            raise ValueError(f"training.loss.r1_interval: expected >= 1, got {self.loss.r1_interval}")
