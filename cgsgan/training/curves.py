"""The curves of a run, from its log: what to look at first when a run is judged from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cgsgan.export.charts import Curve, Panel, save_panels
from cgsgan.training.log import read_log

PANELS = (
    ("logits", ("real_logits", "fake_logits", "generator_logits"), False),
    ("gap: D(real) - D(fake)", ("logit_gap",), False),
    ("gradient norms", ("generator_gradient_norm", "discriminator_gradient_norm", "penalty_gradient_norm"), True),
    ("R1 penalty", ("r1_penalty",), True),
    ("score of the averaged generator", ("frd", "fid_inception", "fid_dinov2"), False),
    ("few samples against many, dB", ("sampler_psnr", "uniform_psnr"), False),
    ("proposal: divergence from its targets, nats", ("proposal_divergence",), False),
    ("images per second", ("images_per_second",), False),
)
"""Title, keys of the log, logarithmic."""


def curve_panels(rows: Sequence[dict[str, Any]]) -> list[Panel]:
    """One panel for each group of quantities that the log holds; whatever else it holds has the last one.

    Args:
        rows: of :func:`read_log`; rows of events become red marks.
    """
    marks = [float(row["kimg"]) for row in rows if "event" in row and "kimg" in row]
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if "event" in row or "kimg" not in row:
            continue
        for key, value in row.items():
            if key not in ("kimg", "time") and isinstance(value, int | float):
                points.setdefault(key, []).append((float(row["kimg"]), float(value)))
    known = {key for _, keys, _ in PANELS for key in keys}
    others = tuple(key for key in points if key not in known)
    positive = all(y > 0 for key in others for _, y in points[key])
    groups = [*PANELS, ("other terms", others, positive)]
    return [
        Panel(
            title=title,
            curves=[Curve(name=_readable(key), points=points[key]) for key in keys if key in points],
            logarithmic=logarithmic,
            marks=marks,
        )
        for title, keys, logarithmic in groups
        if any(key in points for key in keys)
    ]


def save_curves(log: Path, path: Path) -> bool:
    """Draw the curves of a log as PNG.

    Returns:
        Whether there was anything to draw.
    """
    panels = curve_panels(read_log(log))
    if panels:
        save_panels(path, panels, x_label="kimg")
    return bool(panels)


def _readable(key: str) -> str:
    return key.replace("_gradient_norm", "").replace("_", " ")
