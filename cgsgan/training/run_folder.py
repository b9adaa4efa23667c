"""The folder of one run: config, log, samples, checkpoints. A folder never holds two runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cgsgan.export.atomic import atomic_path
from cgsgan.training.checkpoint import list_checkpoints

CONFIG_FILE = "config.yaml"


class RunFolderError(ValueError):
    """A folder that cannot be used for this run; one line for the user."""


@dataclass(frozen=True)
class RunFolder:
    """Where everything of a run is.

    Attributes:
        path: the folder itself.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / CONFIG_FILE

    @property
    def log(self) -> Path:
        """One JSON object a line."""
        return self.path / "log.jsonl"

    @property
    def samples(self) -> Path:
        """Contact sheets made while training."""
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        """Checkpoint folders."""
        return self.path / "checkpoints"

    def latest_checkpoint(self) -> Path:
        """The newest complete checkpoint.

        Raises:
            RunFolderError: when there is none.
        """
        found = list_checkpoints(self.checkpoints)
        if not found:
            raise RunFolderError(f"{self.path}: nothing to resume, it holds no complete checkpoint")
        return found[-1]

    def check_free(self) -> None:
        """Say early, before anything slow, that a new run cannot go here.

        Raises:
            RunFolderError: when there is a file of this name, or the folder already holds something.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"{self.path}: is a file; --out names a folder")
        if self.path.exists() and any(self.path.iterdir()):
            resumable = bool(list_checkpoints(self.checkpoints))
            fix = "continue the run in it with --resume" if resumable else "remove it (it holds no checkpoint)"
            raise RunFolderError(f"{self.path}: is not empty; choose another --out, or {fix}")

    def create(self, config_text: str) -> None:
        """Make the folder for a new run and write its config.

        Raises:
            RunFolderError: as :meth:`check_free`.
        """
        self.check_free()
        self.samples.mkdir(parents=True)
        self.checkpoints.mkdir()
        self.write_config(config_text)

    def write_config(self, config_text: str) -> None:
        """Write the resolved config, atomically: what stands there is what the next resume starts from."""
        with atomic_path(self.config) as partial:
            partial.write_text(config_text, encoding="utf-8")


def free_run_folder(parent: Path, name: str) -> RunFolder:
    """``parent/name``, or the first of ``name-2``, ``name-3``... that does not exist."""
    candidate, number = parent / name, 2
    while candidate.exists():
        candidate, number = parent / f"{name}-{number}", number + 1
    return RunFolder(candidate)
