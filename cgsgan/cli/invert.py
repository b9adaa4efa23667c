"""``cgsgan invert PHOTO [CKPT]``: a photograph to a head of a generator."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cgsgan.export.atomic import free_path

if TYPE_CHECKING:
    import torch

    from cgsgan.cameras import Cameras


@dataclass(frozen=True, kw_only=True)
class InvertArguments:
    """Find the head of a photograph, and write a generator that makes it: render, export and mesh take the folder.

    Attributes:
        photo: a square picture of one head, cropped as the training pictures were; more views with --more.
        checkpoint: a run folder, a checkpoint folder or a generator.safetensors; default the generator that comes with
            the package.
        more: further views of the same person.
        mask: grey pictures, white where the head is, one for each view; transparent photos need none.
        background: behind the head, where there is neither mask nor transparency: auto (a plain colour that is found at
            the border), white, black or #rrggbb.
        camera: yaw,pitch in degrees of each view, or a dataset.json with labels of the photos; default: found as well.
        depth: w is always a head the generator knows, ws fits better, tuned changes the generator for this head.
        steps: factor on the number of steps.
        look: a timm model whose features are compared too, such as vit_small_patch14_dinov2.lvd142m.
        weights: its weight file; default a download.
        film: also write progress.webp: the photo, and the head as it is found.
        seed: of the start.
        out: folder to write to, over what is in it; default inverted/PHOTO, or the first free inverted/PHOTO-2, -3...
        best: of a run folder, the checkpoint with the best score (--training.evaluate-kimg) instead of the newest.
        device: auto is a GPU where there is one.
    """

    photo: Annotated[Path, tyro.conf.Positional]
    checkpoint: Annotated[Path | None, tyro.conf.Positional] = None
    more: tuple[Path, ...] = ()
    mask: tuple[Path, ...] = ()
    background: str = "auto"
    camera: tuple[str, ...] = ()
    depth: Literal["w", "ws", "tuned"] = "tuned"
    steps: float = 1.0
    look: str | None = None
    weights: Path | None = None
    film: bool = False
    seed: int = 0
    out: Path | None = None
    best: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"


def run(argv: list[str]) -> int:
    """Parse, invert, say what was written."""
    arguments = tyro.cli(InvertArguments, args=argv, prog="cgsgan invert")
    out = arguments.out or free_path(Path("inverted") / arguments.photo.stem)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; expected a folder to write to")
    if not 0.01 <= arguments.steps <= 100:
        raise ValueError(f"--steps: expected a factor from 0.01 to 100, got {arguments.steps}")
    if arguments.weights is not None and arguments.look is None:
        raise ValueError("--weights: are those of --look MODEL, which is missing")

    from cgsgan.data.progress import progress_bar
    from cgsgan.generators import load_generator
    from cgsgan.inverting import invert_photos, save_inverted
    from cgsgan.latents.targets import read_target

    photos = [arguments.photo, *arguments.more]
    device = choose_device(arguments.device)
    generator = load_generator(arguments.checkpoint, best=arguments.best, device=device)
    target = read_target(
        photos, size=generator.resolution, masks=list(arguments.mask) or None, background=arguments.background
    )
    cameras = read_cameras(arguments.camera, photos)
    with progress_bar() as progress:
        found = invert_photos(
            generator, target, cameras, _settings(arguments), look=_look(arguments, device), progress=progress
        )
    for path, what in save_inverted(out, generator, target, found, film=arguments.film).items():
        print(f"wrote {path}: {what}")
    print(found.describe(target))
    print(f"more: python render.py {out} --turntable webp --ply; python -m cgsgan mesh {out} head.glb")
    return 0


def _settings(arguments: InvertArguments) -> Any:
    from cgsgan.latents.inversion import InversionConfig

    plain = InversionConfig(depth=arguments.depth, seed=arguments.seed)
    steps = {
        name: max(1, round(getattr(plain, name) * arguments.steps)) for name in ("w_steps", "ws_steps", "tuning_steps")
    }
    return InversionConfig(depth=arguments.depth, seed=arguments.seed, **steps)


def choose_device(wanted: str) -> str:
    """``cpu`` or ``cuda``.

    Raises:
        ValueError: when a GPU is asked for and there is none.
    """
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no CUDA device here; leave it out, or say --device cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _look(arguments: InvertArguments, device: str) -> Any:
    if arguments.look is None:
        return None
    from cgsgan.latents.perceptual import PerceptualDistance

    return PerceptualDistance.open(arguments.look, arguments.weights, device)


def read_cameras(given: tuple[str, ...], photos: list[Path]) -> Cameras | None:
    """Cameras ``[1, view]`` from ``yaw,pitch`` in degrees or a ``dataset.json``; None when nothing is given.

    Raises:
        ValueError: when they do not fit the photos.
    """
    import torch

    from cgsgan.cameras import Cameras, orbit

    if not given:
        return None
    if len(given) == 1 and given[0].endswith(".json"):
        return Cameras.from_labels(_read_labels(Path(given[0]), photos)[None])
    try:
        angles = torch.tensor([[math.radians(float(part)) for part in text.split(",")] for text in given])
    except ValueError:
        angles = torch.empty(0)
    if angles.shape != (len(photos), 2) or not bool((angles[:, 1].abs() < math.radians(89)).all()):
        raise ValueError(
            f"--camera: expected yaw,pitch in degrees for each of the {len(photos)} views, such as 20,-5, or one "
            f"dataset.json; got {' '.join(given)}"
        )
    return orbit(angles[:, 0], angles[:, 1]).map(lambda t: t[None])


def _read_labels(path: Path, photos: list[Path]) -> torch.Tensor:
    import torch

    try:
        labels = {Path(name).name: label for name, label in json.loads(path.read_text(encoding="utf-8"))["labels"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--camera {path}: not a dataset.json with labels ({' '.join(str(error).split())})") from None
    for photo in photos:
        if photo.name not in labels or len(labels[photo.name]) != 25:
            raise ValueError(f"--camera {path}: has no label of 25 numbers for {photo.name}")
    return torch.tensor([labels[photo.name] for photo in photos], dtype=torch.float32)
