"""The smallest real experiment: every part is the real one, only small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from cgsgan.cameras import orbit
from cgsgan.config import ExperimentConfig, parse_config
from cgsgan.generators import build_generator, build_renderer
from cgsgan.models.discriminator import Discriminator
from cgsgan.training.draws import FakeDraws, draw_jitter, tell_cameras
from cgsgan.training.judged import JudgedImages
from cgsgan.training.milestones import Milestones
from cgsgan.training.run_folder import RunFolder
from cgsgan.training.steps import AdversarialSteps
from cgsgan.training.surface_steps import SurfaceSteps
from cgsgan.training.trainer import Trainer

TINY = {
    "name": "tiny",
    "resolution": 32,
    "generator": {
        "mapping": {"z_dim": 8, "w_dim": 16},
        "points": {"count": 16, "start": "ball", "features": "tokens"},
        "transformer": {"width": 16, "heads": 2, "mlp_ratio": 2, "first_blocks": 1},
        "anchors": {"split_factors": [1, 2], "first_position": "points", "start_log_scale": -2.5, "shrink": False},
    },
    "discriminator": {
        "unshuffle": 2,
        "channels": [8, 8, 8],
        "downsample": "average",
        "camera_width": 8,
        "camera_layers": 1,
        "half_precision_blocks": 0,
    },
    "training": {"batch_size": 8, "views_per_scene": 3, "kimg": 0.064, "log_kimg": 0.032, "sample_kimg": 0.032,
                 "checkpoint_kimg": 0.032, "loss": {"r1_interval": 2, "blur_fade_kimg": 0.05, "blur_sigma": 1.0}},
}  # fmt: skip

TINY_PLANES = {
    **TINY,
    "generator": {
        "kind": "triplanes",
        "mapping": {"z_dim": 8, "w_dim": 16, "label_dim": 25},
        "backbone": {"resolution": 8, "plane_channels": 4, "channels": [8, 8]},
        "decoder": {"width": 8, "features": 4},
        "superresolution": {"input_resolution": 16, "channels": [6, 4]},
    },
    "rendering": {"kind": "volume", "samples": 5, "importance_samples": 4, "neural_resolution": 8},
    "discriminator": {**TINY["discriminator"], "dual": True},
    "training": {**TINY["training"], "planes": {"density_weight": 0.25, "density_interval": 2, "density_points": 20,
                                                "swap_kimg": 0.1, "final_neural_resolution": 12, "fade_kimg": 0.1}},
}  # fmt: skip
"""Every part of EG3D, on the same data and loop."""

TINY_SURFACE = {
    **TINY,
    "generator": {
        "kind": "sdf_planes",
        "camera_conditioning": False,
        "mapping": {"z_dim": 8, "w_dim": 16},
        "backbone": {"resolution": 8, "plane_channels": 3, "channels": [8, 8]},
        "oriented_channels": 4,
        "decoder": {"width": 8, "start_beta": 0.05},
        "proposal": {"bins": 8, "probe_resolution": 8, "channels": 6, "blocks": 1},
    },
    "rendering": {"kind": "robust", "probe_resolution": 8, "bins": 8, "samples": 5, "strata": 4,
                  "inference_samples": 4, "inference_wide_samples": 8},
    "training": {**TINY["training"], "batch_size": 4, "views_per_scene": 1,
                 "planes": {"density_weight": 0.25, "density_interval": 2, "density_points": 20},
                 "surface": {"low_resolution": 8, "low_samples": 6, "sampler_kimg": 0.004, "full_kimg": 0.008,
                             "fade_kimg": 0.008, "patch_size": 5, "beta_start": 0.05, "beta_final": 0.02,
                             "beta_kimg": 0.016, "density_kimg": 0.012}},
}  # fmt: skip
"""Every part of WYSIWYG: all three stages within 16 pictures."""


TINY_IMPLICIT = {
    **TINY,
    "generator": {
        "kind": "implicit",
        "mapping": {"z_dim": 8, "w_dim": 16, "layers": 3, "normalize": False},
        "field": {"width": 8, "layers": 2, "ball_density": 4.0},
    },
    "rendering": {"kind": "volume", "samples": 4, "importance_samples": 3, "density_noise": 1.0,
                  "density_noise_kimg": 0.05},
    "training": {**TINY["training"], "views_per_scene": 1,
                 "growth": {"sizes": [8, 16], "until_kimg": [0.02, 0.045], "fade_kimg": 0.01}},
}  # fmt: skip
"""pi-GAN, growing from 8 over 16 to 32 px."""


def tiny_surface(**training: object) -> ExperimentConfig:
    """The tiny scenes of signed distance; ``training`` overrides fields of their training config."""
    config = parse_config(TINY_SURFACE, source="tests")
    return replace(config, training=replace(config.training, **training))


def tiny_implicit(**training: object) -> ExperimentConfig:
    """The tiny implicit fields; ``training`` overrides fields of their training config."""
    config = parse_config(TINY_IMPLICIT, source="tests")
    return replace(config, training=replace(config.training, **training))


def tiny_planes(**training: object) -> ExperimentConfig:
    """The tiny tri-planes; ``training`` overrides fields of their training config."""
    config = parse_config(TINY_PLANES, source="tests")
    return replace(config, training=replace(config.training, **training))


def tiny_config(**training: object) -> ExperimentConfig:
    """The tiny experiment; ``training`` overrides fields of its training config."""
    config = parse_config(TINY, source="tests")
    return replace(config, training=replace(config.training, **training))


def randomize(module: torch.nn.Module, scale: float = 0.2) -> None:
    """Leave the symmetric start (zero residuals, zero biases), where many gradients vanish."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.add_(noise.to(parameter.dtype) * scale)


def tiny_steps(config: ExperimentConfig, dtype: torch.dtype = torch.float32) -> AdversarialSteps:
    """Both networks away from their start, and the objective."""
    torch.manual_seed(0)
    generator = build_generator(config.generator).to(dtype)
    discriminator = Discriminator(config.discriminator).to(dtype)
    randomize(generator)
    randomize(discriminator)
    parts = {
        "generator": generator,
        "discriminator": discriminator,
        "renderer": build_renderer(config),
        "size": config.resolution,
        "loss": config.training.loss,
        "planes": config.training.planes,
        "dual": config.discriminator.dual,
    }
    if config.generator.kind == "sdf_planes":
        return SurfaceSteps(**parts, surface=config.training.surface)
    return AdversarialSteps(**parts)


class TinyData:
    """A deterministic pool of random pictures and cameras, dealt out like the real stream does."""

    def __init__(self, config: ExperimentConfig, rank: int = 0, world_size: int = 1) -> None:
        random = torch.Generator().manual_seed(3)
        yaw, pitch = torch.rand(2, 40, generator=random) - 0.5
        self.labels = orbit(yaw, pitch).to_labels()
        self.pixels = torch.rand(40, 4, config.resolution, config.resolution, generator=random)
        self.pixels[:, :3] *= self.pixels[:, 3:]
        self.batch_size, self.rank, self.world_size, self.position = config.training.batch_size, rank, world_size, 0

    def next(self):
        index = (torch.arange(self.batch_size) + self.position) % 40
        self.position += self.batch_size
        index = index[self.rank :: self.world_size]

        class Batch:
            premultiplied = self.pixels[index]
            camera_labels = self.labels[index]

        return Batch()

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]

    def sample_labels(self, count: int, generator: torch.Generator):
        return self.labels[torch.randint(40, (count,), generator=generator)]


def tiny_trainer(config: ExperimentConfig, folder: Path, accelerator: Accelerator) -> Trainer:
    """A trainer on :class:`TinyData`."""
    data = TinyData(config, accelerator.process_index, accelerator.num_processes)
    return Trainer(
        steps=tiny_steps(config),
        stream=data,
        labels=data,
        config=config.training,
        accelerator=accelerator,
        run=RunFolder(folder),
        milestones=Milestones(sample=lambda ema, seen: f"sampled at {seen}", config={"name": "tiny"}),
    )


def tiny_draws(config: ExperimentConfig, views: int, dtype: torch.dtype = torch.float32) -> FakeDraws:
    """Latents, cameras and backgrounds for B scenes with ``views`` views each."""
    random = torch.Generator().manual_seed(11)
    batch = config.training.batch_size
    yaw, pitch = torch.rand(2, batch, views, generator=random) - 0.5
    draws = FakeDraws(
        z=torch.randn(batch, config.generator.mapping.z_dim, generator=random).to(dtype),
        camera_labels=orbit(yaw, pitch).to_labels().to(dtype),
        backgrounds=torch.rand(batch, views, 3, generator=random).to(dtype),
    )
    if config.generator.kind == "gaussians":
        return draws
    told = draws if config.generator.kind == "implicit" else tell_cameras(random, draws, swap=0.5)
    return draw_jitter(random, told)


def tiny_reals(config: ExperimentConfig, dtype: torch.dtype = torch.float32) -> JudgedImages:
    """Real pictures."""
    batch = TinyData(config).next()
    return JudgedImages(images=batch.premultiplied[:, :3].to(dtype), camera_labels=batch.camera_labels.to(dtype))
