"""Checkpoints: safetensors for tensors, JSON for the rest, no pickle anywhere.

A checkpoint is a folder ``RUN/checkpoints/kimg-000123``:

    generator.safetensors      the averaged generator; its header carries the whole config, so the file stands alone
    generator_slow.safetensors the slower average, where a run keeps two
    training.safetensors       both networks and both optimisers, to resume
    state.json                 images seen, step, position in the data

It is written under another name, synced and renamed: a checkpoint that has its name is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from cgsgan.export.atomic import atomic_path
from cgsgan.training.generator_file import (
    GENERATOR_FILE,
    CheckpointError,
    GeneratorFile,
    read_generator,
    save_tensors,
    write_generator,
)

TRAINING_FILE = "training.safetensors"
STATE_FILE = "state.json"
SLOW_FILE = "generator_slow.safetensors"
BEST_FILE = "best.json"
SHIPPED_FILE = Path(__file__).parents[1] / "assets" / GENERATOR_FILE
SHIPPED_NAME = "shipped"
"""The generator that comes with the package."""
PARTIAL, REPLACED, REMOVED = ".partial", ".replaced", ".removed"


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What resuming needs besides the generator file.

    Attributes:
        tensors: names to tensors, see :mod:`cgsgan.training.state_tensors`.
        progress: JSON-able: step, images seen, position in the data.
    """

    tensors: dict[str, Tensor]
    progress: dict[str, Any]


def save_checkpoint(
    folder: Path,
    generator: GeneratorFile,
    training: TrainingState,
    *,
    slow: GeneratorFile | None = None,
    keep: int = 0,
    milestone_kimg: float = 0.0,
) -> Path:
    """Write a checkpoint folder atomically below ``folder``, note its score if ``training.progress`` has one, and
    remove old ones, see :func:`prune_checkpoints`. ``slow`` is the slower average, if there is one.

    Returns:
        The new checkpoint's folder.

    Raises:
        CheckpointError: when it cannot be written (no space, no permission); the older ones are intact.
    """
    target = folder / f"kimg-{generator.images_seen / 1000:09.3f}"
    partial = folder / f".{target.name}{PARTIAL}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_generator(partial / GENERATOR_FILE, generator)
        if slow is not None:
            write_generator(partial / SLOW_FILE, slow)
        save_tensors(partial / TRAINING_FILE, training.tensors)
        (partial / STATE_FILE).write_text(json.dumps(training.progress, indent=1), encoding="utf-8")
        for path in partial.iterdir():
            _sync(path)
        _sync(partial)
        replaced = folder / f".{target.name}{REPLACED}"
        if target.exists():
            target.rename(replaced)
        partial.rename(target)
        _sync(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        older = list_checkpoints(folder)
        intact = f"the last one, {older[-1].name}, is intact" if older else "there is no older one"
        raise CheckpointError(
            f"{target}: the checkpoint could not be written ({' '.join(str(error).split())}); {intact}; "
            "make room or the folder writable, then --resume"
        ) from None
    note_stored_score(target)
    prune_checkpoints(folder, keep=keep, milestone_kimg=milestone_kimg)
    return target


def prune_checkpoints(folder: Path, *, keep: int, milestone_kimg: float = 0.0) -> None:
    """Remove all but the newest ``keep`` checkpoints (0: none), the milestones, and the best one if one was noted.

    Args:
        folder: the checkpoints.
        keep: how many of the newest stay.
        milestone_kimg: the first checkpoint at or after every multiple of this stays. 0 is off.
    """
    if keep <= 0:
        return
    checkpoints = list_checkpoints(folder)
    best = read_best(folder)
    staying = {best["checkpoint"]} if best else set()
    if milestone_kimg > 0:
        first: dict[int, str] = {}
        for path in checkpoints:
            first.setdefault(int(float(path.name.removeprefix("kimg-")) / milestone_kimg + 1e-9), path.name)
        first.pop(0, None)
        staying |= set(first.values())
    for old in checkpoints[:-keep]:
        if old.name not in staying:
            # Under another name first: a removal that is cut short leaves nothing that looks like a checkpoint.
            removed = old.with_name(f".{old.name}{REMOVED}")
            shutil.rmtree(removed, ignore_errors=True)
            old.rename(removed)
            shutil.rmtree(removed, ignore_errors=True)


def clean_checkpoints(folder: Path) -> list[str]:
    """Remove what a killed process left half written or half removed; returns the names of what went.

    A checkpoint that was being replaced by a new one of the same name comes back when the new one is not there.
    """
    gone = []
    for path in sorted(folder.glob(".kimg-*")):
        old = path.with_name(path.name.removeprefix(".").removesuffix(REPLACED))
        if path.name.endswith(REPLACED) and not old.exists():
            path.rename(old)
        elif path.name.endswith((PARTIAL, REPLACED, REMOVED)):
            shutil.rmtree(path)
            gone.append(path.name)
    return gone


def note_stored_score(checkpoint: Path) -> None:
    """Note the score that a checkpoint carries in its state, if any, as best so far if it is.

    A process that is killed between writing the checkpoint and noting the score has lost nothing.
    """
    try:
        score = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8")).get("score")
        if score is not None:
            note_score(checkpoint, str(score["metric"]), float(score["value"]))
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint}: its score cannot be read ({error})") from None


def note_score(checkpoint: Path, metric: str, value: float, *, lower_is_better: bool = True) -> bool:
    """Remember ``checkpoint`` as the best so far if it is; the best one is never removed.

    Args:
        checkpoint: a complete checkpoint.
        metric: name of what was evaluated; another name than the one noted before starts anew, and so does a best
            one that somebody removed.
        value: its value.
        lower_is_better: as for distances.

    Returns:
        Whether it is the best so far.
    """
    best = read_best(checkpoint.parent)
    if best and best["metric"] == metric and (checkpoint.parent / best["checkpoint"] / STATE_FILE).is_file():
        better = value < best["value"] if lower_is_better else value > best["value"]
        if not better:
            return False
    with atomic_path(checkpoint.parent / BEST_FILE) as partial:
        partial.write_text(json.dumps({"checkpoint": checkpoint.name, "metric": metric, "value": value}))
    return True


def read_best(folder: Path) -> dict[str, Any] | None:
    """The best checkpoint below ``folder`` that :func:`note_score` noted: keys checkpoint, metric, value."""
    path = folder / BEST_FILE
    if not path.is_file():
        return None
    try:
        best = json.loads(path.read_text(encoding="utf-8"))
        return {"checkpoint": str(best["checkpoint"]), "metric": str(best["metric"]), "value": float(best["value"])}
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); remove it") from None


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints below ``folder``, oldest first."""
    return sorted(path for path in folder.glob("kimg-*") if (path / STATE_FILE).is_file())


def means_shipped(path: Path | str | None) -> bool:
    """Whether the generator that comes with the package is meant: no path, or "shipped" where nothing has that name."""
    return path is None or (str(path) == SHIPPED_NAME and not Path(path).exists())


def find_generator(path: Path | str | None, *, best: bool = False) -> Path:
    """The generator file of a run folder (its newest checkpoint), a checkpoint folder, or the file itself.

    Args:
        path: where to look; None or "shipped" mean the one that comes with the package.
        best: of a run folder, the checkpoint with the best score instead of the newest.

    Raises:
        CheckpointError: when there is none; says what was looked for.
    """
    if means_shipped(path):
        path = None
    if path is None and not SHIPPED_FILE.is_file():
        raise CheckpointError(
            f"no generator comes with this copy of cgsgan (looked for {SHIPPED_FILE}); name a run folder or a "
            "checkpoint, such as the one that `python train.py` makes"
        )
    path = SHIPPED_FILE if path is None else Path(path)
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder; expected a run folder, a checkpoint or a .safetensors")
    if (path / GENERATOR_FILE).is_file():
        return path / GENERATOR_FILE
    checkpoints = list_checkpoints(path / "checkpoints") or list_checkpoints(path)
    if best:
        noted = read_best(path / "checkpoints") or read_best(path)
        checkpoints = [folder for folder in checkpoints if noted and folder.name == noted["checkpoint"]]
        if not checkpoints:
            raise CheckpointError(f"{path}: none of its checkpoints has a score; train with --training.evaluate-kimg")
    if not checkpoints:
        raise CheckpointError(f"{path}: holds no checkpoint (looked for checkpoints/kimg-*/{GENERATOR_FILE})")
    return checkpoints[-1] / GENERATOR_FILE


def read_slow_weights(checkpoint: Path) -> dict[str, Tensor] | None:
    """Weights of the slower average in a checkpoint folder; None where there is none."""
    path = checkpoint / SLOW_FILE
    return read_generator(path).weights if path.is_file() else None


def read_training_state(checkpoint: Path) -> TrainingState:
    """Read what resuming needs from a checkpoint folder.

    Raises:
        CheckpointError: when a file is missing or damaged.
    """
    try:
        progress = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        with safe_open(str(checkpoint / TRAINING_FILE), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint}: cannot resume from it ({error})") from None
    return TrainingState(tensors=tensors, progress=progress)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
