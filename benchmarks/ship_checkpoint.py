"""Makes the generator that comes with the package from a run: averaged weights only, half precision, its source named.

    python benchmarks/ship_checkpoint.py runs/heads64 --command "python train.py configs/heads64.yaml --data.path DATA"

The file carries its config, so that `python -m cgsgan info` and `python benchmarks/model_card.py` need nothing else. It
also says how far its pictures are from those of the weights in full precision.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from cgsgan import __version__
from cgsgan.cameras import orbit
from cgsgan.export.atomic import atomic_path
from cgsgan.gallery import SHEET_VIEWS, generate_scenes, latents_from_seeds, render_views
from cgsgan.generators import TrainedGenerator, load_generator
from cgsgan.training.checkpoint import SHIPPED_FILE, find_generator
from cgsgan.training.generator_file import read_generator, write_generator
from cgsgan.training.shipping import make_shippable

MOST_BYTES = 15_000_000
COMPARED_SEEDS = 32
DATA = (
    "heads128: 10,000 pictures rendered from the ICT Face Model Light (ICT-FaceKit; Li et al., CVPR 2020): its shapes "
    "and expressions; colours, hair, glasses, clothes and lights are procedural. No photographs, no real persons"
)
LICENCE = "data: MIT, Copyright (c) 2020 USC Institute for Creative Technologies; weights: Apache-2.0"


def pictures(generator: TrainedGenerator) -> torch.Tensor:
    """Pictures ``[seed, view, 3, size, size]`` in [0, 1] at the training size."""
    angles = torch.tensor(SHEET_VIEWS).deg2rad()
    z = latents_from_seeds(range(COMPARED_SEEDS), generator.z_dim)
    scenes = generate_scenes(generator, z)
    cameras = orbit(angles[:, 0], angles[:, 1])
    return render_views(generator.renderer, scenes, cameras, size=generator.resolution).clamp(0, 1)


def difference(full: TrainedGenerator, half: TrainedGenerator) -> str:
    """How far the pictures of two generators are apart, in 8-bit levels."""
    error = 255 * (pictures(full) - pictures(half)).abs()
    share = float((error > 1).double().mean())
    return (
        f"mean {float(error.mean()):.3f}, largest {float(error.max()):.1f} of 255 levels, {share:.2%} of the values by "
        f"more than 1 ({COMPARED_SEEDS} heads x {len(SHEET_VIEWS)} views against full precision)"
    )


def ship(run: Path, out: Path, provenance: dict[str, str]) -> str:
    """Write the file; returns the difference that half precision makes.

    Raises:
        ValueError: when it is too large, or as ``make_shippable``; nothing is written then.
    """
    source = find_generator(run)
    full = read_generator(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as temporary:
        write_generator(temporary, make_shippable(full, provenance))
        found = difference(load_generator(source), load_generator(temporary))
        write_generator(temporary, make_shippable(full, {**provenance, "half precision": found}))
        size = os.path.getsize(temporary)
        if size > MOST_BYTES:
            raise ValueError(
                f"{source}: {size / 1e6:.1f} MB in half precision; at most {MOST_BYTES / 1e6:g} are shipped"
            )
    return found


def main() -> int:
    """Write the file and say what it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run", type=Path, help="run folder (its newest checkpoint), checkpoint or generator.safetensors"
    )
    parser.add_argument("--command", required=True, help="what makes this run again, for its metadata")
    parser.add_argument("--data", default=DATA, help="what it was trained on")
    parser.add_argument("--licence", default=LICENCE)
    parser.add_argument("--out", type=Path, default=SHIPPED_FILE)
    arguments = parser.parse_args()
    made_by = f"cgsgan {__version__}, torch {torch.__version__}"
    provenance = {
        "data": arguments.data, "licence": arguments.licence, "command": arguments.command, "made by": made_by,
    }  # fmt: skip
    try:
        found = ship(arguments.run, arguments.out, provenance)
    except (ValueError, OSError) as error:
        raise SystemExit(f"ship_checkpoint: {error}") from None
    print(f"half precision: {found}")
    print(f"wrote {arguments.out} ({arguments.out.stat().st_size / 1e6:.2f} MB)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
