"""Index lists for ``data.index_list``: which pictures to train on, and how often each.

CGS-GAN (Barthel et al. 2025) trains on such a list, repeated by pose and smile; EG3D (Chan et al. 2022) repeats steep
poses up to 16 times. Here both are one rule, (count of the fullest bin / count of the bin) ** power.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int64

from cgsgan.data.cache import replacing
from cgsgan.data.errors import DatasetError


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """What a picture must be to stay.

    Attributes:
        min_coverage: least share of the picture that the mask covers.
        max_coverage: largest share.
        max_border: largest share of the border that the mask touches (necks touch the lower edge).
        max_off_centre: largest distance of the mask's centre from the middle, picture sizes.
        min_score: least score, where scores are given.
    """

    min_coverage: float = 0.1
    max_coverage: float = 0.95
    max_border: float = 0.5
    max_off_centre: float = 0.25
    min_score: float | None = None


def filter_pictures(
    statistics: Mapping[str, Float[np.ndarray, " picture"]],
    config: FilterConfig,
    scores: Float[np.ndarray, " picture"] | None = None,
) -> dict[str, Bool[np.ndarray, " picture"]]:
    """Which pictures each rule throws out.

    Args:
        statistics: of :func:`cgsgan.data.statistics.picture_statistics`.
        config: the rules.
        scores: of a model of the user's.
    """
    thrown = {
        "too little of the picture": statistics["coverage"] < config.min_coverage,
        "too much of the picture": statistics["coverage"] > config.max_coverage,
        "touches the border": statistics["border"] > config.max_border,
        "off-centre": statistics["off-centre"] > config.max_off_centre,
    }
    if scores is not None and config.min_score is not None:
        # "not at least", so that NaN goes.
        thrown["low score"] = ~(scores >= config.min_score)
    return {rule: np.asarray(found) for rule, found in thrown.items()}


@dataclass(frozen=True, kw_only=True)
class RebalanceConfig:
    """How rare values are repeated.

    Attributes:
        bins: equal steps from the smallest to the largest value.
        power: 0 repeats nothing, 1 fills all bins as far as ``max_repeats`` allows.
        max_repeats: of one picture.
        symmetric: take absolute values; mirror images fill the other side.
    """

    bins: int = 20
    power: float = 0.5
    max_repeats: int = 16
    symmetric: bool = False

    def __post_init__(self) -> None:
        if self.bins < 1 or self.max_repeats < 1 or not 0 <= self.power < math.inf:
            raise DatasetError(
                "expected --bins >= 1, --max-repeats >= 1 and --power >= 0, got "
                f"{self.bins}, {self.max_repeats}, {self.power:g}"
            )


def rebalance(values: Float[np.ndarray, " picture"], config: RebalanceConfig) -> Int64[np.ndarray, " entry"]:
    """Positions of the pictures, each at least once, rare values more often; nothing is random.

    A bin whose factor is 2.3 gets every picture twice and three in ten, evenly spread, a third time.

    Raises:
        DatasetError: when a value is not finite.
    """
    if not np.isfinite(values).all():
        raise DatasetError(f"picture {int(np.flatnonzero(~np.isfinite(values))[0])} has no finite value to balance by")
    values = np.abs(values) if config.symmetric else values
    low, high = float(values.min()), float(values.max())
    bins = np.zeros(len(values), dtype=np.int64)
    if high > low:
        bins = np.minimum(((values - low) / (high - low) * config.bins).astype(np.int64), config.bins - 1)
    counts = np.bincount(bins, minlength=config.bins)
    factors = np.minimum((counts.max() / np.maximum(counts, 1)) ** config.power, config.max_repeats)
    repeats = np.ones(len(values), dtype=np.int64)
    for number in np.flatnonzero(counts):
        members = np.flatnonzero(bins == number)
        steps = np.floor(np.arange(len(members) + 1) * factors[number] + 1e-9).astype(np.int64)
        repeats[members] = np.diff(steps)
    return np.repeat(np.arange(len(values), dtype=np.int64), repeats)


def read_scores(path: Path, names: Sequence[str], key: str | None = None) -> Float[np.ndarray, " picture"]:
    """A number for every picture, from a JSON object ``{name: number}`` or from JSON lines with a ``name`` in each.

    Args:
        path: a .json, or a .jsonl such as ``cgsgan data filter --report`` writes.
        names: of the pictures.
        key: of the number in each line of a .jsonl.

    Raises:
        DatasetError: when the file is neither, or a picture has no number in it.
    """
    try:
        content = path.read_text(encoding="utf-8")
        table = json.loads(content) if key is None else _read_lines(content, key)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise DatasetError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(table, dict):
        raise DatasetError(f"{path}: expected an object {{name: number}}, got {type(table).__name__}")
    for name in names:
        if type(table.get(name)) not in (int, float):
            raise DatasetError(f"{path}: expected a number for {name!r}, got {table.get(name)!r}")
    return np.array([table[name] for name in names], dtype=np.float64)


def _read_lines(content: str, key: str) -> dict[str, object]:
    lines = [json.loads(line) for line in content.splitlines() if line.strip()]
    if not all(isinstance(line, dict) and isinstance(line.get("name"), str) for line in lines):
        raise ValueError("every line must be an object with a name")
    return {line["name"]: line.get(key) for line in lines}


def write_report(
    path: Path,
    names: Sequence[str],
    statistics: Mapping[str, Float[np.ndarray, " picture"]],
    thrown: Mapping[str, Bool[np.ndarray, " picture"]],
) -> None:
    """One JSON line for each picture: its name, its numbers, and the rules that throw it out (none: it is kept)."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row, name in enumerate(names):
            numbers = {key: round(float(values[row]), 6) for key, values in statistics.items()}
            reasons = [rule for rule, found in thrown.items() if found[row]]
            file.write(json.dumps({"name": name, **numbers, "thrown out": reasons}) + "\n")


def write_index_list(path: Path, names: Sequence[str], chosen: Int64[np.ndarray, " entry"], overwrite: bool) -> None:
    """Write the names at ``chosen``, in order and with repeats, as ``data.index_list`` reads them.

    Raises:
        DatasetError: when nothing is chosen, or ``path`` exists and may not be replaced.
    """
    if not len(chosen):
        raise DatasetError("no picture is left; loosen the rules")
    if path.exists() and not overwrite:
        raise DatasetError(f"{path} exists; choose another name, or replace it with --overwrite")
    with replacing(path) as temporary:
        temporary.write_text(json.dumps([names[i] for i in chosen.tolist()]), encoding="utf-8")
