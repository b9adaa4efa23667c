"""``cgsgan data filter``: which pictures of a set are as they should be, by masks, scores and a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from cgsgan.data.dataset import HeadDataset
    from cgsgan.data.outliers import ModelFilterConfig
    from cgsgan.data.selection import FilterConfig

SHOWN = 24
"""Pictures of each group on the contact sheet."""


@dataclass(frozen=True, kw_only=True)
class FilterFiles:
    """What else is read and written.

    Attributes:
        scores: JSON object {name: number} made by any model of yours, for --min-score.
        sheet: also draw the histograms before and after, .png or .jpg.
        pictures: also draw kept pictures, and those that each rule throws out, .png or .jpg.
        report: also write all numbers and the rules that throw each picture out, .jsonl.
        overwrite: replace files that are there already.
    """

    scores: Path | None = None
    sheet: Path | None = None
    pictures: Path | None = None
    report: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for file in (self.sheet, self.pictures):
            if file is not None:
                expect_picture(file)
        if self.report is not None and self.report.suffix != ".jsonl":
            raise ValueError(f"--report: expected a .jsonl file, got {self.report}")
        if self.report is not None and self.report.exists() and not self.overwrite:
            raise ValueError(f"--report: {self.report} exists; choose another name, or replace it with --overwrite")


def filter_command() -> Callable[..., int]:
    """The command, with what tyro needs to read its annotations: modules that are heavy to import."""
    from cgsgan.data.outliers import ModelFilterConfig
    from cgsgan.data.selection import FilterConfig

    globals().update(FilterConfig=FilterConfig, ModelFilterConfig=ModelFilterConfig)
    return filter_


def filter_(
    path: tyro.conf.Positional[str],
    out: Path,
    config: Annotated[FilterConfig, tyro.conf.arg(name="")],
    network: Annotated[ModelFilterConfig, tyro.conf.arg(name="")],
    files: Annotated[FilterFiles, tyro.conf.arg(name="")],
    resolution: int = 64,
    mask_folder: str | None = None,
) -> int:
    """Write an index list of the pictures whose masks, and what a network sees in them, are as they should be.

    Args:
        path: folder or zip with a dataset.json, or shards.
        out: the .json to write, for --data.index-list.
        config: the rules for masks and scores.
        network: the rules for what a timm model says.
        files: what else is read and written.
        resolution: size at which masks are measured.
        mask_folder: folder of grey PNG masks, inside the set or on disk.
    """
    import numpy as np

    from cgsgan.data.progress import progress_bar
    from cgsgan.data.selection import filter_pictures, read_scores, write_index_list, write_report
    from cgsgan.data.statistics import picture_statistics

    if (files.scores is None) != (config.min_score is None):
        raise ValueError("--scores and --min-score belong together: give both or neither")
    names = label_names(path)
    score = None if files.scores is None else read_scores(files.scores, names)
    dataset = _open(path, resolution, mask_folder)
    with progress_bar() as progress:
        columns = picture_statistics(dataset, progress)
        thrown = filter_pictures(columns, config, score)
        if network.model is not None:
            _ask_model(path, mask_folder, network, progress, columns, thrown)
    out_of_set = np.any(list(thrown.values()), axis=0)
    kept = np.flatnonzero(~out_of_set)
    for rule, found in thrown.items():
        print(f"{rule}: {int(found.sum())}")
    if files.report is not None:
        write_report(files.report, names, columns, thrown)
        print(f"wrote the numbers of {len(names)} pictures to {files.report}")
    if files.pictures is not None:
        save_picture(_show(dataset, columns, thrown), files.pictures, "pictures")
    write_index_list(out, names, kept, files.overwrite)
    print(f"wrote {len(kept)} of {len(names)} pictures to {out}")
    if files.sheet is not None:
        before_and_after(columns, columns, kept, files.sheet)
    return 0


def _ask_model(
    path: str, mask_folder: str | None, network: ModelFilterConfig, progress: Any, columns: dict, thrown: dict
) -> None:
    """Add what the model says to ``columns``, and whom it throws out to ``thrown``."""
    import torch

    from cgsgan.data.outliers import filter_by_model, model_statistics
    from cgsgan.metrics.picture_models import open_picture_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = open_picture_model(str(network.model), network.weights, device)
    size = min(model.size, _open(path, 1, mask_folder).file_size)
    found = model_statistics(_open(path, size, mask_folder), model, network, progress)
    columns |= found
    thrown |= filter_by_model(found, network)


def _show(dataset: HeadDataset, columns: Mapping[str, Any], thrown: Mapping[str, Any]) -> Image.Image:
    """Kept pictures, the farthest of the kept ones, and those of each rule, the farthest first."""
    import numpy as np

    from cgsgan.data.preview import grouped_sheet

    kept = np.flatnonzero(~np.any(list(thrown.values()), axis=0))
    groups = {f"kept: {len(kept)}, such as": kept[np.linspace(0, len(kept) - 1, min(SHOWN, len(kept))).astype(int)]}
    far = columns.get("outlier", columns["off-centre"])
    groups["kept, but nearest to being thrown out"] = kept[np.argsort(-far[kept], kind="stable")][:SHOWN]
    for rule, found in thrown.items():
        rows = np.flatnonzero(found)
        groups[f"{rule}: {len(rows)}"] = rows[np.argsort(-far[rows], kind="stable")][:SHOWN]
    indices = {title: rows.tolist() for title, rows in groups.items()}
    notes = {row: f"{far[row]:.2f}" for rows in indices.values() for row in rows}
    return grouped_sheet(dataset, indices, notes)


def _open(path: str, resolution: int, mask_folder: str | None) -> HeadDataset:
    from cgsgan.data.dataset import DataConfig, open_dataset

    return open_dataset(
        DataConfig(path=path, resolution=resolution, mask_folder=mask_folder, x_flip=False, preload=False)
    )


def label_names(path: str) -> list[str]:
    """The names of a set's labels, in order."""
    from cgsgan.data.entries import read_labels
    from cgsgan.data.sources import open_source

    return list(read_labels(open_source(path))[0])


def before_and_after(
    before: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray], chosen: Sequence[int] | Any, sheet: Path
) -> None:
    """Draw histograms of ``before`` and of the ``chosen`` rows of ``columns``."""
    from cgsgan.data.histograms import histogram_sheet
    from cgsgan.data.statistics import UNITS

    expect_picture(sheet)
    series = {name: [values, columns[name][chosen]] for name, values in before.items()}
    save_picture(histogram_sheet(series, UNITS), sheet, "histograms")


def expect_picture(out: Path) -> None:
    """Refuse names of other files than pictures."""
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"expected a .png or .jpg file, got {out}")


def save_picture(picture: Image.Image, out: Path, what: str) -> None:
    """Write a picture and say so."""
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(out)
    print(f"wrote {what} to {out}")
