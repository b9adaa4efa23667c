"""Scenes to write, and how far what was read is from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st

from cgsgan.export import SplatFileError, read_splats
from cgsgan.types import Gaussians


def random_scene(count: int = 50, seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.rand(count, 3, generator=g) - 0.5,
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=-1),
        scales=torch.exp(torch.rand(count, 3, generator=g) * 6 - 9),  # 0.0001 to 0.05, as heads have
        opacities=torch.rand(count, generator=g) * 0.98 + 0.01,
        colors=torch.rand(count, 3, generator=g),
    )


def worst_errors(back: Gaussians, scene: Gaussians) -> dict[str, float]:
    """Largest differences: world units, ln of scales, opacity, colour, degrees of rotation."""
    near = torch.minimum((back.quats - scene.quats).norm(dim=-1), (back.quats + scene.quats).norm(dim=-1))
    return {
        "means": (back.means - scene.means).abs().max().item(),
        "log_scales": (back.scales.log() - scene.scales.log()).abs().max().item(),
        "opacities": (back.opacities - scene.opacities).abs().max().item(),
        "colors": (back.colors - scene.colors).abs().max().item(),
        "degrees": math.degrees(4 * torch.asin(near.double() / 2).max().item()),
    }


def assert_within(back: Gaussians, scene: Gaussians, bounds: dict[str, float]) -> None:
    assert back.count == scene.count
    for name, worst in worst_errors(back, scene).items():
        assert worst <= bounds[name], (name, worst, bounds[name])


def refused(path: Path, data: bytes, read: Callable[..., Gaussians] = read_splats) -> str:
    """Write ``data``; the one line with which it is refused."""
    path.write_bytes(data)
    try:
        read(path)
    except SplatFileError as error:
        text = str(error)
        assert text.startswith(f"{path}: ")
        assert "\n" not in text
        assert "expected" in text
        assert len(text) < len(str(path)) + 300
        return text
    raise AssertionError(f"{path.name}: was read")


def read_mutated(path: Path, whole: bytes, data: st.DataObject) -> None:
    """Bytes changed, cut off or inserted anywhere: read, or refused with the named error, and nothing else."""
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del changed[data.draw(st.integers(0, len(changed))) :]
    path.write_bytes(bytes(changed))
    with suppress(SplatFileError):
        scene = read_splats(path)
        assert all(bool(torch.isfinite(tensor).all()) for tensor in scene.tensors())
        assert np.abs(scene.quats.norm(dim=-1).numpy() - 1).max() < 1e-5
