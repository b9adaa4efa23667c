"""``cgsgan data``: make procedural heads; pack, check, look at, measure, filter and rebalance data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cgsgan.cli.data_filter import before_and_after, expect_picture, filter_command, label_names, save_picture

if TYPE_CHECKING:
    from cgsgan.data.dataset import HeadDataset
    from cgsgan.data.packing import PackConfig
    from cgsgan.data.selection import RebalanceConfig


def run(argv: list[str]) -> int:
    """Run one sub-command; returns the exit code (1 when ``check`` found problems).

    Raises:
        ValueError: for anything wrong with the data or the arguments' values, in one line.
    """
    from cgsgan.data.packing import PackConfig
    from cgsgan.data.selection import RebalanceConfig

    # tyro reads the annotations of the commands below; these come from modules that are heavy to import.
    globals().update(PackConfig=PackConfig, RebalanceConfig=RebalanceConfig)
    commands = (make, pack, check, preview, stats, filter_command(), rebalance)
    return tyro.extras.subcommand_cli_from_dict(
        {command.__name__.rstrip("_"): command for command in commands},
        prog="cgsgan data",
        description="Make procedural heads; pack, check, look at, measure, filter or rebalance a data set.",
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
        path: folder or zip with a dataset.json, or shards.
        mask_folder: folder of grey PNG masks, inside the set or on disk.
    """
    from cgsgan.data.check import check_dataset
    from cgsgan.data.progress import progress_bar
    from cgsgan.data.sources import check_presence

    check_presence(path)
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
        path: folder or zip with a dataset.json, or shards.
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


def pack(
    folder: tyro.conf.Positional[str],
    out: tyro.conf.Positional[Path],
    config: Annotated[PackConfig, tyro.conf.arg(name="")],
    overwrite: bool = False,
) -> int:
    """Pack a folder of pictures and its labels into a zip, or into WebDataset shards, that can be trained on.

    Args:
        folder: pictures, with a dataset.json in it or given by --labels; or a zip, or shards.
        out: the .zip to write, or the folder of shards.
        config: labels, masks, resolution and kind of the pictures; number or size of shards.
        overwrite: replace a file that is there already.
    """
    from cgsgan.data.packing import pack_dataset
    from cgsgan.data.progress import progress_bar

    with progress_bar() as progress:
        count = pack_dataset(folder, out, config, overwrite=overwrite, progress=progress)
    shards = sorted(out.glob("*.tar")) if out.is_dir() else [out]
    size = sum(path.stat().st_size for path in shards) / 2**20
    print(f"wrote {count} pictures to {out} ({size:.1f} MiB{f' in {len(shards)} shards' if out.is_dir() else ''})")
    return 0


def stats(
    path: tyro.conf.Positional[str],
    out: Path,
    resolution: int = 64,
    mask_folder: str | None = None,
    index_list: str | None = None,
) -> int:
    """Print how cameras, masks, brightness and sharpness are spread, and draw it.

    Args:
        path: folder or zip with a dataset.json, or shards.
        out: the picture to write, .png or .jpg.
        resolution: size at which pictures are measured.
        mask_folder: folder of grey PNG masks, inside the set or on disk.
        index_list: measure the pictures of this list, with its repeats.
    """
    from cgsgan.data.histograms import describe, histogram_sheet
    from cgsgan.data.progress import progress_bar
    from cgsgan.data.statistics import UNITS, camera_statistics, picture_statistics

    expect_picture(out)
    dataset = _open(path, resolution, mask_folder, index_list)
    with progress_bar() as progress:
        columns = camera_statistics(dataset) | picture_statistics(dataset, progress)
    print(f"{path}: {len(dataset)} pictures")
    print(describe(columns, UNITS))
    save_picture(histogram_sheet({name: [values] for name, values in columns.items()}, UNITS), out, "histograms")
    return 0


def rebalance(
    path: tyro.conf.Positional[str],
    out: Path,
    config: Annotated[RebalanceConfig, tyro.conf.arg(name="")],
    by: str = "yaw",
    index_list: str | None = None,
    sheet: Path | None = None,
    overwrite: bool = False,
) -> int:
    """Write an index list that repeats pictures with rare poses (or a rare attribute), as CGS-GAN does.

    Args:
        path: folder or zip with a dataset.json, or shards.
        out: the .json to write, for --data.index-list.
        config: how rare values are repeated.
        by: yaw, pitch, a .json {name: number} such as the strength of a smile, or FILE.jsonl:KEY.
        index_list: start from this list (of "filter", or of a "rebalance" by something else).
        sheet: also draw the histograms before and after.
        overwrite: replace a file that is there already.
    """
    import numpy as np

    from cgsgan.data import selection
    from cgsgan.data.statistics import camera_statistics

    names = label_names(path)
    order = np.arange(len(names))
    if index_list is not None:
        from cgsgan.data.entries import select_entries

        order = select_entries(names, Path(path), index_list=index_list, max_size=None)
    columns = camera_statistics(_open(path, None, None))
    columns = {name: columns[name] for name in ("yaw", "pitch")}
    if by not in columns:
        columns[by] = np.full(len(names), np.nan)
        used = np.unique(order)  # pictures that a filter threw out need no number
        columns[by][used] = _read_attribute(by, [names[i] for i in used.tolist()])
    chosen = order[selection.rebalance(columns[by][order], config)]
    selection.write_index_list(out, names, chosen, overwrite)
    most = int(np.bincount(chosen).max())
    print(f"wrote {len(chosen)} entries of {len(np.unique(chosen))} pictures to {out}; the most of one: {most}")
    if sheet is not None:
        before_and_after({name: values[order] for name, values in columns.items()}, columns, chosen, sheet)
    return 0


def _read_attribute(by: str, names: list[str]) -> object:
    from cgsgan.data.selection import read_scores

    file, colon, key = by.rpartition(":")
    if colon and file.endswith(".jsonl"):
        return read_scores(Path(file), names, key)
    if not by.endswith(".json"):
        raise ValueError(f"--by: expected yaw, pitch, a .json file or FILE.jsonl:KEY, got {by!r}")
    return read_scores(Path(by), names)


def _open(path: str, resolution: int | None, mask_folder: str | None, index_list: str | None = None) -> HeadDataset:
    """The pictures of a set in the order of its labels, without mirror images."""
    from cgsgan.data.dataset import DataConfig, open_dataset

    config = DataConfig(
        path=path,
        resolution=resolution or 1,
        mask_folder=mask_folder,
        index_list=index_list,
        x_flip=False,
        preload=False,
    )
    return open_dataset(config)
