"""The words of the model card around its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cgsgan.export.atomic import atomic_path
from cgsgan.generators import TrainedGenerator

SET_DISTANCES = {
    "frd": "FRD: FID of random features, in 1 % of the real variance",
    "fid": "FID of these features",
    "fid3d": "FID_3D of these features (mapped as if seen from the front)",
    "kid_x1000": "KID x 1000",
    "precision": "precision",
    "recall": "recall",
}
VIEWS = {
    "consistency_depth_10deg": "views 10 degrees apart: depth error, world units",
    "consistency_color_10deg": "... colour error, 0 to 1",
    "consistency_depth_30deg": "views 30 degrees apart: depth error",
    "consistency_color_30deg": "... colour error",
    "consistency_visible_30deg": "... share still seen",
    "similarity_same": "cosine of two views of one head, in the features named above (no measure of identity)",
    "similarity_other": "... of two heads",
    "similarity_told_apart": "... probability that views of one head are the more alike",
    "identity_same": "identity: cosine of two views of one head",
    "identity_other": "... of two heads",
    "identity_told_apart": "... probability that views of one head are the more alike",
}
TRUTH = {
    "pose_yaw_deg": ("yaw that a small network sees, against the camera's: mean error, degrees", "pose_yaw_floor_deg"),
    "pose_pitch_deg": ("pitch: mean error, degrees", "pose_pitch_floor_deg"),
    "depth_mean": ("mean depth maps, generated against real heads: mean difference, world units", "depth_mean_floor"),
    "depth_offset": ("... with its sign; positive: generated heads lie behind", None),
    "depth_nearest": ("depth maps of a head against those of the most similar real one", "depth_nearest_floor"),
    "depth_spread": ("spread of depth over heads, of that of real ones", None),
}
USE = """\
```bash
python render.py                    # a grid and a turntable into renders/
python -m cgsgan info               # the above, from the file
```

```python
import torch, cgsgan

generator = cgsgan.load_generator()
scene = generator(torch.randn(1, generator.z_dim)).gaussians
```"""
INTENDED = """\
## What it is for, and what not

To see at once what this project makes, to try the tools (turntables, `.ply`, metrics) without training, and as a
starting point for tests and teaching. It is small, made to ship with the code, and no measure of what the method
reaches: train your own for anything else.

The heads are synthetic, from a parametric face model and procedural colours; no photograph was used, and no real
person is shown. The set's skin colours, hair, ages and expressions are those somebody programmed: it says nothing about
how people look, and must not be used to judge, identify or imitate anybody. Do not take its pictures for evidence of
how well the method does on photographs."""
DISTANCES = """\
## Figures

```bash
python -m cgsgan evaluate cgsgan/assets/generator.safetensors --data heads128.zip \\
  --depth-truth heads128_eval.zip --count {fake_pictures_per_repeat} --repeats {repeats}
python benchmarks/model_card.py --data heads128.zip --eval heads128_eval.zip   # this page
```

Features: `{features}`. {repeats} x {fake_pictures_per_repeat} pictures at the data's cameras, on white, against
{real_pictures} real ones; mean +- standard deviation over draws of latents and cameras. Beside it the same figures of
{bound_pictures} other real pictures (the floor) and of grey (the ceiling). Random features need no weights; their FID
is comparable with no paper's. FID grows as sets shrink: compare a bin of yaw with its floor. This generator does not
look at the camera, so FID_3D is FID. Torch {torch}."""
GEOMETRY = """\
## Views and shape

A head is about 0.5 world units high. Pose: a small network learns yaw and pitch from four fifths of the real set; the
floor is its error on the rest. Depth: maps of 128 generated heads against those of 32 other persons, from the same
eight cameras; nothing says which should be which, so these compare sets; the floors are real heads against each other.
Depths of generated heads are expected ones, which lie a little behind the surface that is seen.
"""
AGREEMENT = """\
![views against each other](agreement.webp)

*Seeds 0 to 3. A view, its depth, another view 30 degrees on, that one carried back by the depth, and where the two
disagree. White: not seen by both.*

![shape](shapes.webp)

*Mean depth of 32 real heads, of 128 generated ones, and the difference (grey: none; light: generated heads stand out;
dark: they lie behind).*"""
NEIGHBORS = """\
## Does it repeat its training pictures?

For 256 samples and for 256 pictures of 32 other persons at the same cameras: the nearest of all training pictures and
their mirror images, at 64 px. Pixels: root mean square difference of colour over the pixels that either head covers;
features: as above. A generator that repeats pictures has samples that are nearer to them than other persons are; smooth
pictures are nearer to everything.
"""
SHOWN = """\
![distributions](neighbors.png)

![samples and their nearest training pictures](neighbors.webp)

*Eight samples, not chosen, each with the three nearest training pictures by pixels, then by features.*"""


def write_card(
    path: Path, generator: TrainedGenerator, found: dict[str, Any], remarks: str, torch_version: str
) -> None:
    """Write the card.

    Args:
        path: of the README.md.
        generator: what it is about.
        found: the figures.
        remarks: what is to be seen, by somebody who looked.
        torch_version: figures were measured with.
    """
    sections = [
        "# The generator that comes with cgsgan",
        "![eight heads turning](turntable.webp)",
        _facts(generator),
        "## Six seeds from seven sides\n\n![grid](grid.webp)\n\n*Seeds 0 to 5, full variety (psi 1), not chosen.*",
        *([f"## What is to be seen\n\n{remarks.strip()}"] if remarks.strip() else []),
        _distances(found, torch_version),
        _geometry(found),
        _neighbors(found["neighbors"]),
        INTENDED,
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _facts(generator: TrainedGenerator) -> str:
    values = sum(tensor.numel() for tensor in generator.network.state_dict().values())
    rows = {
        "what": f"{generator.resolution} px, {values:,} values, latents of {generator.z_dim} numbers",
        "trained": f"on {generator.images_seen:,} pictures",
        **{name: generator.provenance.get(name, "not named in the file") for name in ("data", "licence")},
        "command": f"`{generator.provenance.get('command', 'not named in the file')}`",
        **{k: v for k, v in generator.provenance.items() if k not in ("data", "licence", "command")},
    }
    table = "\n".join(f"| {name} | {text} |" for name, text in rows.items())
    return f"| | |\n|---|---|\n{table}\n\n{USE}"


def _distances(found: dict[str, Any], torch_version: str) -> str:
    figures, bounds = found["figures"], found["bounds"]
    names = dict(SET_DISTANCES)
    names |= {k: f"sliced Wasserstein x 1000, {k[4:]} px" for k in figures if k.startswith("swd_")}
    names |= {k: f"FID, yaw {_bin(k)}" for k in figures if k.startswith("fid_yaw_")}
    lines = ["| figure | this generator | other real pictures | grey |", "|---|---|---|---|"]
    for key, words in names.items():
        if key in figures:
            sides = [_number(bounds[side].get(key)) for side in ("other real pictures", "grey")]
            lines.append(f"| {words} | {_figure(figures[key])} | {' | '.join(sides)} |")
    words = {k: f"{v:,}" if isinstance(v, int) else v for k, v in found.items() if not isinstance(v, dict)}
    words["fake_pictures_per_repeat"] = str(found["fake_pictures_per_repeat"])  # it stands in a command
    return DISTANCES.format(**words, torch=torch_version) + "\n\n" + "\n".join(lines)


def _geometry(found: dict[str, Any]) -> str:
    figures = found["figures"]
    lines = ["| figure | this generator | floor |", "|---|---|---|"]
    lines += [f"| {words} | {_figure(figures[key])} | |" for key, words in VIEWS.items() if key in figures]
    for key, (words, floor) in TRUTH.items():
        if key in figures:
            lines.append(f"| {words} | {_figure(figures[key])} | {_number(figures[floor]['mean']) if floor else ''} |")
    return "\n".join([GEOMETRY, *lines, "", AGREEMENT])


def _neighbors(figures: dict[str, float]) -> str:
    lines = ["| nearest training picture | by pixels | by features |", "|---|---|---|"]
    for key, words in (
        ("samples", "samples, median distance"),
        ("held_out", "other real persons, median distance"),
        ("nearest_sample", "samples, smallest"),
        ("nearest_held_out", "other real persons, smallest"),
        ("share_below", "share of samples nearer than the nearest 5 % of the other persons"),
    ):
        lines.append(f"| {words} | {figures[f'pixels_{key}']:.3g} | {figures[f'features_{key}']:.3g} |")
    return "\n".join([NEIGHBORS, *lines, "", SHOWN])


def _figure(figure: dict[str, Any]) -> str:
    spread = "" if figure["std"] is None else f" +- {figure['std']:.2g}"
    return _number(figure["mean"]) + spread


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _bin(name: str) -> str:
    low, high = name.removeprefix("fid_yaw_").rsplit("_", 1)
    return f"{low} to {high} degrees".replace("-inf to", "below").replace(" to inf", " and more")
