"""cgsgan: 3D-consistent Gaussian-splatting GANs of heads.

``load_generator`` is all that is needed to use a trained model; ``cgsgan.experiment`` is where reading starts.
Importing this package loads neither the compiled rasterizer nor any optional dependency.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cgsgan.generators import load_generator

__version__ = "0.1.0"
__all__ = ["__version__", "load_generator"]


def __getattr__(name: str) -> Any:
    if name == "load_generator":
        from cgsgan.generators import load_generator

        return load_generator
    raise AttributeError(f"module 'cgsgan' has no attribute {name!r}")
