"""``cgsgan data``: make procedural heads, check a data set, look at one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def run(argv: list[str]) -> int:
    """Run one sub-command; returns the exit code (1 when ``check`` found problems).

    Raises:
        ValueError: for anything wrong with the data or the arguments' values, in one line.
    """
    return tyro.extras.subcommand_cli_from_dict(
        {"make": make, "check": check, "preview": preview},
        prog="cgsgan data",
        description="Make procedural heads, check a data set, or look at one.",
        args=argv,
    )


def make(out: Path, count: int = 6000, resolution: int = 64, seed: int = 0, overwrite: bool = False) -> int:
    """Render procedural heads into a zip that can be trained on.

    Args:
        out: the .zip to write.
        count: number of pictures, one person each.
        resolution: their size in pixels.
        seed: other seeds give other persons.
        overwrite: replace a file that is there already.
    """
    if out.exists() and not overwrite:
        raise ValueError(f"--out: {out} exists; choose another name, or replace it with --overwrite")
    from cgsgan.data.progress import progress_bar
    from cgsgan.data.synthetic import SyntheticConfig, make_synthetic

    config = SyntheticConfig(count=count, resolution=resolution, seed=seed)
    with progress_bar() as progress:
        path = make_synthetic(config, out, progress)
    size = path.stat().st_size / 2**20
    print(f"wrote {count} heads of {resolution} px to {path} ({size:.1f} MiB)")
    return 0


def check(path: tyro.conf.Positional[str], mask_folder: str | None = None) -> int:
    """Look for everything wrong with a data set.

    Args:
        path: folder or zip with a dataset.json.
        mask_folder: folder of grey PNG masks, inside the set or on disk.
    """
    from cgsgan.data.check import check_dataset
    from cgsgan.data.progress import progress_bar

    with progress_bar() as progress:
        report = check_dataset(path, mask_folder, progress)
    print(f"{path}: {report.summary}")
    for problem in report.problems:
        print(f"problem: {problem}")
    print("no problems" if not report.problems else f"{len(report.problems)} kinds of problems")
    return 1 if report.problems else 0


def preview(
    path: tyro.conf.Positional[str],
    out: Annotated[Path, tyro.conf.arg(name="out")],
    count: int = 64,
    resolution: int = 64,
    mask_folder: str | None = None,
) -> int:
    """Write a contact sheet of a data set and print how its cameras are spread.

    Args:
        path: folder or zip with a dataset.json.
        out: the picture to write, .png or .jpg.
        count: number of pictures.
        resolution: size at which they are shown.
        mask_folder: folder of grey PNG masks, inside the set or on disk.
    """
    from cgsgan.data.dataset import DataConfig, open_dataset
    from cgsgan.data.preview import contact_sheet, pose_histogram

    config = DataConfig(path=path, resolution=resolution, mask_folder=mask_folder, x_flip=False, preload=False)
    dataset = open_dataset(config)
    if count < 1:
        raise ValueError(f"--count: expected at least 1, got {count}")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"--out: expected a .png or .jpg file, got {out}")
    out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(dataset, count).save(out)
    print(pose_histogram(dataset))
    print(f"wrote {min(count, len(dataset))} of {len(dataset)} pictures to {out}")
    return 0
