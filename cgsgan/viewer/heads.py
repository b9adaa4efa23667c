"""What there is to explore: a generator, and heads that were found in photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from cgsgan.generators import TrainedGenerator, load_generator
from cgsgan.viewer.state import SEEDS


class Heads:
    """The generator and the inversions to choose from.

    An inversion comes with a network of its own, tuned to its photograph. One of them is in memory at a time.

    Args:
        generator: makes heads from seeds; may itself be an inversion.
        inversions: folders that ``cgsgan invert`` wrote with this generator.

    Raises:
        ValueError: for a folder without an inversion, or with one of another generator.
    """

    def __init__(self, generator: TrainedGenerator, inversions: Sequence[Path] = ()) -> None:
        self.generator = generator
        self._files: dict[str, tuple[Path | None, int]] = {}
        if generator.found is not None:
            self._files |= {f"found {index}": (None, index) for index in range(len(generator.found))}
        for path in inversions:
            self._add(path)
        self._open: tuple[Path, TrainedGenerator] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All choices; those found in photographs first."""
        return (*self._files, SEEDS)

    def open(self, name: str) -> tuple[TrainedGenerator, Float[Tensor, "1 num_ws w_dim"] | None]:
        """The generator of a choice, and the styles of its head; None for :data:`SEEDS`."""
        if name == SEEDS:
            return self.generator, None
        path, index = self._files[name]
        generator = self.generator if path is None else self._load(path)
        assert generator.found is not None
        return generator, generator.found[index : index + 1]

    def _load(self, path: Path) -> TrainedGenerator:
        if self._open is None or self._open[0] != path:
            self._open = None  # let go of the last one before the next is read
            device = next(self.generator.parameters()).device
            self._open = path, load_generator(path, device=device)
        return self._open[1]

    def _add(self, path: Path) -> None:
        loaded = load_generator(path)
        if loaded.found is None:
            raise ValueError(f"--inversions {path}: expected a folder that `cgsgan invert` wrote, found no head in it")
        if (loaded.config.generator, loaded.config.resolution) != (
            self.generator.config.generator,
            self.generator.config.resolution,
        ):
            raise ValueError(f"--inversions {path}: was made with another generator; invert with this one")
        name = path.parent.name if path.is_file() else path.resolve().name
        for index in range(len(loaded.found)):
            label = name if len(loaded.found) == 1 else f"{name} {index}"
            while label in self._files or label == SEEDS:
                label += "'"
            self._files[label] = path, index
