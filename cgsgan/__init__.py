"""cgsgan: 3D-consistent Gaussian-splatting GANs of heads.

    generator = cgsgan.load_generator()
    head = generator.sample(3).scene(0)
    cgsgan.write_splats("head.spz", head)

``cgsgan.experiment`` is where reading starts. Importing this package loads neither torch, nor the compiled rasterizer,
nor any optional dependency: the names below come when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cgsgan.cameras import Cameras, orbit, turntable
    from cgsgan.export import ExportOptions, fit_colors, read_splats, save_image, write_splats
    from cgsgan.film import save_turntable
    from cgsgan.generators import TrainedGenerator, load_generator
    from cgsgan.types import Gaussians

__version__ = "0.1.0"
__all__ = [
    "Cameras",
    "ExportOptions",
    "Gaussians",
    "TrainedGenerator",
    "__version__",
    "fit_colors",
    "load_generator",
    "orbit",
    "read_splats",
    "save_image",
    "save_turntable",
    "turntable",
    "write_splats",
]
_HOMES = {
    "Cameras": "cameras",
    "ExportOptions": "export",
    "Gaussians": "types",
    "TrainedGenerator": "generators",
    "fit_colors": "export",
    "load_generator": "generators",
    "orbit": "cameras",
    "read_splats": "export",
    "save_image": "export",
    "save_turntable": "film",
    "turntable": "cameras",
    "write_splats": "export",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"cgsgan.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'cgsgan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
