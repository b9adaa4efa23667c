"""What stops a run that has gone wrong: numbers that are not finite, and players that no longer play."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """When a run stops by itself.

    Attributes:
        on_nan: NaN or infinity in losses, gradients or weights: "stop" at that step, or "rollback" to the last
            checkpoint, from where it goes on with other latents and later pictures.
        max_rollbacks: from one and the same checkpoint; then the run stops.
        on_collapse: "warn" in console and log, or "stop", when one of the conditions below holds. "off" does neither.
        logit_bound: mean logits beyond this, either sign, are a discriminator that has run away.
        gap_floor: a mean D(real) - D(fake) below this is a discriminator that sees no difference ...
        gap_kimg: ... and a collapse when it stays so for this long. 0 is off.
    """

    on_nan: Literal["stop", "rollback"] = "stop"
    max_rollbacks: int = 3
    on_collapse: Literal["warn", "stop", "off"] = "warn"
    logit_bound: float = 20.0
    gap_floor: float = 0.02
    gap_kimg: float = 100.0

    def __post_init__(self) -> None:
        """Refuse bounds that no run can keep.

        Raises:
            ValueError: names the field and what is allowed.
        """
        if not self.logit_bound > 0:
            raise ValueError(f"training.guard.logit_bound: expected a number > 0, got {self.logit_bound}")
        if self.max_rollbacks < 0 or self.gap_kimg < 0:
            raise ValueError("training.guard: max_rollbacks and gap_kimg are 0 or more")


class TrainingBrokenError(FloatingPointError):
    """A run whose numbers are gone, or whose players no longer play; the message is one line for the user."""


class FiniteGuard:
    """Looks for NaN and infinity after every step.

    Gradients that are not finite are made so before they are applied, as published; their norm, as it was before, is
    among the scalars of a step, and so they are seen here.

    Args:
        networks: name and network of everything whose weights are watched.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self._weights = {f"{name} weights": list(network.parameters()) for name, network in networks.items()}

    def look(self, stats: Mapping[str, Tensor]) -> tuple[list[str], Bool[Tensor, " quantity"]]:
        """Names of all watched quantities of a step, and which of them are broken in this process."""
        scalars = [value.detach().float().reshape(()) for value in stats.values()]
        scalars += [
            torch.nn.utils.get_total_norm([p.detach() for p in group]).float() for group in self._weights.values()
        ]
        return [*stats, *self._weights], ~torch.stack(scalars).isfinite()


def check_weights(network: nn.Module, name: str, images_seen: int) -> None:
    """Refuse to save broken weights: a good checkpoint is not rotated out by a broken one.

    Raises:
        TrainingBrokenError: when there is NaN or infinity among the parameters.
    """
    if not all(bool(p.isfinite().all()) for p in network.parameters()):
        raise TrainingBrokenError(f"the {name} is not finite at {images_seen / 1000:g} kimg; it was not saved")


class CollapseGuard:
    """Watches the mean logits between two reports.

    Args:
        config: bounds.
    """

    def __init__(self, config: GuardConfig) -> None:
        self._config = config
        self._flat_since: float | None = None
        self._warned: set[str] = set()

    def look(self, means: Mapping[str, float], kimg: float) -> str | None:
        """What is wrong, in words; a warning that was given once is not repeated until things were well again.

        Args:
            means: mean scalars since the last report, equal on all processes.
            kimg: where the run is.

        Raises:
            TrainingBrokenError: when something is wrong and ``on_collapse`` is "stop".
        """
        if self._config.on_collapse == "off":
            return None
        found = {"logits": self._far(means), "gap": self._flat(means, kimg)}
        new = [text for kind, text in found.items() if text and kind not in self._warned]
        self._warned = {kind for kind, text in found.items() if text}
        if not new:
            return None
        text = f"at {kimg:g} kimg {'; '.join(new)}"
        if self._config.on_collapse == "stop":
            raise TrainingBrokenError(
                f"training has collapsed: {text}. Go back to an earlier checkpoint with other learning rates or "
                "a larger training.loss.r1_gamma, or go on regardless with --training.guard.on-collapse warn"
            )
        return f"warning: {text}"

    def _far(self, means: Mapping[str, float]) -> str | None:
        bound = self._config.logit_bound
        logits = {name: means[name] for name in ("real_logits", "fake_logits", "generator_logits") if name in means}
        far = [f"{name} {value:+.1f}" for name, value in logits.items() if abs(value) > bound]
        return f"logits passed +-{bound:g} ({', '.join(far)})" if far else None

    def _flat(self, means: Mapping[str, float], kimg: float) -> str | None:
        config = self._config
        if config.gap_kimg == 0 or "logit_gap" not in means or means["logit_gap"] >= config.gap_floor:
            self._flat_since = None
            return None
        if self._flat_since is None:
            self._flat_since = kimg
        if kimg - self._flat_since < config.gap_kimg:
            return None
        return (
            f"D(real) - D(fake) has been below {config.gap_floor:g} since {self._flat_since:g} kimg: "
            "the discriminator sees no difference"
        )
