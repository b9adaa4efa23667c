"""What a file of weights is refused with."""

from __future__ import annotations


class WeightsError(ValueError):
    """Weights that cannot be used: damaged, unsafe, or of another network; the message is one line for the user."""
