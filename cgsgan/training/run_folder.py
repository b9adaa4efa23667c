"""The folder of one run: config, log, samples, checkpoints. A folder never holds two runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cgsgan.export.atomic import atomic_path, free_path
from cgsgan.training.checkpoint import clean_checkpoints, list_checkpoints, note_stored_score
from cgsgan.training.log import trim_log

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
    def curves(self) -> Path:
        """Losses and gradient norms, drawn from the log."""
        return self.path / "curves.png"

    @property
    def samples(self) -> Path:
        """Contact sheets made while training."""
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        """Checkpoint folders."""
        return self.path / "checkpoints"

    def latest_checkpoint(self) -> Path | None:
        """The newest complete checkpoint; none in a run that ended before its first."""
        found = list_checkpoints(self.checkpoints)
        return found[-1] if found else None

    def check_free(self) -> None:
        """Say early, before anything slow, that a new run cannot go here.

        Raises:
            RunFolderError: when there is a file of this name, or the folder already holds something.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"{self.path}: is a file; --out names a folder")
        if self.path.exists() and any(not _is_leftover(path) for path in self.path.iterdir()):
            fix = "continue the run in it with --resume" if self.config.is_file() else "remove it (it holds no run)"
            raise RunFolderError(f"{self.path}: is not empty; choose another --out, or {fix}")

    def create(self, config_text: str) -> None:
        """Make the folder for a new run and write its config.

        Raises:
            RunFolderError: as :meth:`check_free`.
        """
        self.check_free()
        self.write_config(config_text)  # first: a folder with a config can be resumed, whatever happens next
        self.samples.mkdir()
        self.checkpoints.mkdir()

    def clean(self) -> None:
        """Remove what a killed process left half written. For one process, before looking for a checkpoint."""
        self.samples.mkdir(exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        clean_checkpoints(self.checkpoints)
        for folder in (self.path, self.samples, self.checkpoints):
            for path in folder.iterdir():
                if _is_leftover(path):
                    path.unlink()

    def prepare_resume(self, config_text: str, kimg: float) -> None:
        """Make the folder ready to go on: its config is the one given, its log ends where training goes on.

        Args:
            config_text: the resolved config, in which a run may have got longer.
            kimg: where training goes on.
        """
        trim_log(self.log, kimg)
        newest = self.latest_checkpoint()
        if newest is not None:
            note_stored_score(newest)
        self.write_config(config_text)

    def write_config(self, config_text: str) -> None:
        """Write the resolved config, atomically: what stands there is what the next resume starts from."""
        with atomic_path(self.config) as partial:
            partial.write_text(config_text, encoding="utf-8")


def _is_leftover(path: Path) -> bool:
    """A file that was being written when its process was killed (see ``export.atomic``)."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def free_run_folder(parent: Path, name: str) -> RunFolder:
    """``parent/name``, or the first of ``name-2``, ``name-3``... that does not exist."""
    return RunFolder(free_path(parent / name))
