"""The figures of a comparison."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from accelerate import Accelerator

from cgsgan.comparison.contestants import Contestant
from cgsgan.comparison.speed import MEGABYTE, Speed, measure_speeds, measure_training
from cgsgan.data.dataset import DataConfig, open_dataset
from cgsgan.data.depth_truth import DepthTruth
from cgsgan.data.progress import Progress, ignore_progress
from cgsgan.evaluation import EvaluationConfig, Evaluator, GeneratorScenes
from cgsgan.metrics.extractors import FeatureExtractor
from cgsgan.rendering.robust import WITHOUT_PROPOSAL, RobustRenderer
from cgsgan.rendering.volume import VolumeRenderer
from cgsgan.training.poses import PosePrior

Value = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig:
    """What to measure.

    Attributes:
        data: the real pictures.
        quality: metrics, pictures and repeats; no metrics: no quality.
        size: of the pictures whose making is timed, pixels; None: the largest training size among the contestants.
        rounds: of the timing.
        training_steps: to time; 0: rates come from the logs alone.
    """

    data: DataConfig
    quality: EvaluationConfig | None
    size: int | None = None
    rounds: int = 15
    training_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was found.

    Attributes:
        names: of the contestants.
        rows: label to one value for each contestant; None where there is none.
        notes: what the figures do not say.
        quality: everything that was measured of each contestant's pictures, as ``cgsgan evaluate`` writes it.
    """

    names: list[str]
    rows: dict[str, list[Value]]
    notes: list[str]
    quality: list[dict[str, Any]] = field(default_factory=list)


def compare(
    contestants: Sequence[Contestant],
    config: ComparisonConfig,
    accelerator: Accelerator,
    *,
    extractor: FeatureExtractor,
    identity: FeatureExtractor | None = None,
    truth: DepthTruth | None = None,
    progress: Progress = ignore_progress,
) -> Comparison:
    """Measure everything.

    Args:
        contestants: on the accelerator's device.
        config: see :class:`ComparisonConfig`.
        accelerator: device.
        extractor: of the features that pictures are compared by.
        identity: features that know faces, for the metric of that name.
        truth: heads of known depth, for the metric ``depth``.
        progress: told of what is done.
    """
    size = config.size or max(entrant.generator.resolution for entrant in contestants)
    progress("timing", 0, 1)
    speeds = measure_speeds(contestants, size=size, rounds=config.rounds)
    progress("timing", 1, 1)
    rates = None
    if config.training_steps:
        rates = measure_training(contestants, config.data, accelerator, steps=config.training_steps)
    rows = _facts(contestants, speeds, rates, size)
    quality: list[dict[str, Any]] = []
    if config.quality is not None:
        for entrant in contestants:
            told = partial(_tell, progress, entrant.name)
            dataset = open_dataset(replace(config.data, resolution=entrant.generator.resolution), progress=told)
            source = GeneratorScenes(entrant.generator, config.quality.truncation_psi)
            evaluator = Evaluator(
                source, dataset, extractor, config.quality, accelerator, told, identity, truth,
                prior=PosePrior.of(entrant.generator.config.training.poses),
            )  # fmt: skip
            quality.append(evaluator.measure())
        rows |= _figures(quality)
    return Comparison(
        names=[entrant.name for entrant in contestants],
        rows=rows,
        notes=_notes(contestants, extractor, config),
        quality=quality,
    )


def _tell(progress: Progress, name: str, what: str, done: int, total: int) -> None:
    """Of whom; the same work is done for each."""
    progress(f"{name}: {what}", done, total)


def busyness() -> tuple[float, int]:
    """Mean load of the last minute, 0 where the system does not tell, and the number of cores."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return load, os.cpu_count() or 1


def _facts(
    contestants: Sequence[Contestant], speeds: Sequence[Speed], rates: Sequence[float] | None, size: int
) -> dict[str, list[Value]]:
    parameters = [entrant.parameters() for entrant in contestants]
    rows: dict[str, list[Value]] = {
        "from": [entrant.source for entrant in contestants],
        "scenes": [entrant.kind for entrant in contestants],
        "cameras in training": [entrant.generator.config.training.poses.source for entrant in contestants],
        "training size, px": [entrant.generator.resolution for entrant in contestants],
        "trained, kimg": [entrant.generator.images_seen / 1000 for entrant in contestants],
        "trained, minutes by its log": [entrant.logged_minutes for entrant in contestants],
        "training, images/s by its log": [entrant.logged_rate for entrant in contestants],
    }
    if rates is not None:
        rows["training, images/s here, where its run stands"] = list(rates)
    rows |= {f"{name} parameters": [found[name] for found in parameters] for name in parameters[0]}
    rows |= {
        "generator weights, MB": [4 * found["generator"] / MEGABYTE for found in parameters],
        "one kept scene, MB": [speed.scene_megabytes for speed in speeds],
        f"latent to picture at {size} px, per s": [speed.latent_fps for speed in speeds],
        f"kept scene to picture at {size} px, per s": [speed.cached_fps for speed in speeds],
    }
    samples = [count_samples(entrant, size) for entrant in contestants]
    if any(found is not None for found in samples):
        rows["samples per ray"] = [None if found is None else found[0] for found in samples]
        rows[f"samples in a picture at {size} px, million"] = [None if found is None else found[1] for found in samples]
    if any(speed.peak_megabytes is not None for speed in speeds):
        rows["peak memory of a picture, MB"] = [speed.peak_megabytes for speed in speeds]
    return rows


def count_samples(entrant: Contestant, size: int) -> tuple[float, float] | None:
    """Samples per ray, and in a whole picture (millions), with what is looked at to know where; None without rays."""
    renderer = entrant.generator.renderer
    if isinstance(renderer, RobustRenderer):
        config = renderer.config
        per_ray = config.mean_inference_samples
        probed = 0 if config.sampler in WITHOUT_PROPOSAL else config.bins * config.probe_resolution**2
        return per_ray, (per_ray * size**2 + probed) / 1e6
    if isinstance(renderer, VolumeRenderer):
        per_ray = sum(renderer.config.sample_counts(training=False))
        refined = getattr(entrant.generator.config.generator, "superresolution", None) is not None
        side = renderer.config.neural_resolution if refined else size
        return float(per_ray), per_ray * side**2 / 1e6
    return None


def _figures(quality: Sequence[dict[str, Any]]) -> dict[str, list[Value]]:
    names = list(dict.fromkeys(name for found in quality for name in found["figures"]))
    return {name: [found["figures"].get(name, {}).get("mean") for found in quality] for name in names}


def _set_name(data: DataConfig) -> str:
    """What the file of a set is called, wherever it lies; two sets of one name are taken for one."""
    return "heads made here" if data.path is None else data.path.rstrip("/").rsplit("/", 1)[-1]


def _notes(
    contestants: Sequence[Contestant],
    extractor: FeatureExtractor,
    config: ComparisonConfig,
) -> list[str]:
    """What a reader would otherwise have to know."""
    quality = config.quality
    notes = ["Speeds were measured in this process, in turns, one picture at a time: medians."]
    load, cores = busyness()
    if load > 0.75 * cores:
        notes.append(
            f"The machine was busy (load {load:.1f} on {cores} cores): speeds are too low, and those of long work by "
            "more than those of short work, which fits between the others'."
        )
    if any(entrant.logged_rate is not None for entrant in contestants):
        notes.append(
            "Rates and minutes by a log are those of the machine and the load at that time; they compare only if both "
            "were the same for all."
            + ("" if config.training_steps > 0 else " --steps measures training here, side by side.")
        )
    seen = [entrant.generator.images_seen for entrant in contestants]
    if min(seen) == 0:
        fresh = [entrant.name for entrant, count in zip(contestants, seen, strict=True) if count == 0]
        notes.append(f"Never trained, so its quality means nothing: {', '.join(fresh)}.")
    elif max(seen) > 1.05 * min(seen):
        notes.append("They were trained for different numbers of pictures.")
    if len({entrant.generator.resolution for entrant in contestants}) > 1:
        notes.append("Training sizes differ: each is compared with real pictures of its own size.")
    notes.append("A seed is another head in every generator: pictures side by side show style and turning, no pairs.")
    if quality is None:
        return notes
    real = _set_name(config.data)
    for entrant in contestants:
        own = _set_name(entrant.generator.config.data)
        if entrant.generator.images_seen and own != real:
            notes.append(
                f"{entrant.name} was trained on {own}, not on {real}, with which all are compared: how far the two are "
                "apart counts against it."
            )
    if extractor.identity.startswith("random-"):
        notes.append(
            "fid, frd and similarity are by features of a fixed random network: they rank runs of one data set and are "
            "no paper's FID. Other features need weights (--features)."
        )
    if quality.repeats == 1:
        notes.append("One draw of latents and cameras: small differences mean nothing (--repeats).")
    if "consistency" in quality.metrics and any(entrant.kind != "gaussians" for entrant in contestants):
        notes.append(
            "consistency carries a view into another one by its depth. That of what is sampled along rays is the "
            "expected depth of a cloud, rendered before the super-resolution if there is one: errors of depth and "
            "colour are in one figure."
        )
    if "depth" in quality.metrics:
        notes.append(
            "depth_* compare generated heads with other, real heads of known depth from the same cameras: *_floor is "
            "what real heads differ among themselves."
        )
    if len({entrant.generator.config.training.poses.source for entrant in contestants}) > 1:
        notes.append(
            "Those whose cameras in training came from a prior saw no labels; here all are seen from the cameras of "
            "the set's labels, if it has any."
        )
    return notes
