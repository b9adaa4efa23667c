"""The mapping network, its running mean, truncation, and the camera mapping."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cgsgan.models.mapping import CameraMapping, Mapping, MappingConfig

CONFIG = MappingConfig(z_dim=6, w_dim=5, layers=2)


def rms_normalize(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(dim=1, keepdim=True) + 1e-8).sqrt()


def layers(module: Any, x: Tensor, multiplier: float) -> Tensor:
    for layer in module.body.layers:
        x = x @ (layer.weight * multiplier / math.sqrt(x.shape[1])).T + layer.bias * multiplier
        x = torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)
    return x


def expected_w(mapping: Mapping, z: Tensor) -> Tensor:
    x = rms_normalize(z)
    if mapping.embed is not None:
        x = torch.cat([x, rms_normalize(mapping.embed.bias[None]).repeat(len(z), 1)], dim=1)
    return layers(mapping, x, 0.01)


@pytest.mark.parametrize("label_dim", [0, 25])
def test_formula(label_dim: int) -> None:
    mapping = Mapping(MappingConfig(z_dim=6, w_dim=5, label_dim=label_dim), 3).double()
    for parameter in mapping.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter)
    z = torch.randn(4, 6, dtype=torch.float64)
    ws = mapping(z)
    assert ws.shape == (4, 3, 5)
    # observed worst error 9e-16
    torch.testing.assert_close(ws, expected_w(mapping, z)[:, None].repeat(1, 3, 1), atol=1e-13, rtol=0)


def test_camera_conditioning() -> None:
    config = MappingConfig(z_dim=6, w_dim=5, label_dim=25, label_scale=0.5)
    mapping: Any = Mapping(config, 2, conditional=True).double()
    torch.nn.init.normal_(mapping.embed.bias)
    z, labels = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 25, dtype=torch.float64)
    embedded = (labels * 0.5) @ (mapping.embed.weight / 5).T + mapping.embed.bias
    expected = layers(mapping, torch.cat([rms_normalize(z), rms_normalize(embedded)], dim=1), 0.01)
    ws = mapping(z, camera_labels=labels)
    # observed worst error 7e-16
    torch.testing.assert_close(ws, expected[:, None].repeat(1, 2, 1), atol=1e-13, rtol=0)
    ws.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in mapping.parameters())
    zeros = mapping(z, camera_labels=torch.zeros_like(labels))
    # observed worst error 9e-16
    torch.testing.assert_close(zeros[:, 0], expected_w(mapping, z), atol=1e-13, rtol=0)


def test_an_untrained_label_input_is_silent() -> None:
    mapping: Any = Mapping(MappingConfig(z_dim=6, w_dim=5, label_dim=25), 1)
    z = torch.randn(3, 6)
    with torch.no_grad():
        mapping.body.layers[0].weight[:, 6:] *= 7
    before = mapping(z)
    with torch.no_grad():
        mapping.body.layers[0].weight[:, 6:] = 0
    torch.testing.assert_close(mapping(z), before)
    assert [n for n, p in mapping.named_parameters() if not p.requires_grad] == ["embed.weight"]


def test_running_mean() -> None:
    mapping = Mapping(CONFIG, 2)
    average = torch.zeros(5)
    for _ in range(3):
        z = torch.randn(8, 6)
        mapping(z)
        torch.testing.assert_close(mapping.w_average, average)
        w = mapping(z, update_average=True)[:, 0].detach()
        average = 0.998 * average + 0.002 * w.mean(dim=0)
        # observed worst error 8e-8
        torch.testing.assert_close(mapping.w_average, average, atol=1e-6, rtol=0)
    assert mapping.w_average.abs().max() > 1e-4


def test_truncation_and_cutoff() -> None:
    mapping = Mapping(CONFIG, 4)
    mapping.w_average.normal_()
    z = torch.randn(3, 6)
    full = mapping(z)
    expected = mapping.w_average + 0.3 * (full - mapping.w_average)
    torch.testing.assert_close(mapping(z, truncation_psi=0.3), expected)
    mixed = mapping(z, truncation_psi=0.3, truncation_cutoff=1)
    torch.testing.assert_close(mixed[:, :1], expected[:, :1])
    torch.testing.assert_close(mixed[:, 1:], full[:, 1:])
    torch.testing.assert_close(mapping(z, truncation_psi=0.0)[1, 2], mapping.w_average)


def test_camera_mapping_formula() -> None:
    camera = CameraMapping(25, 8, layers=3, lr_multiplier=0.01).double()
    for parameter in camera.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter)
    labels = torch.randn(4, 25, dtype=torch.float64)
    embedded = labels @ (camera.embed.weight / 5).T + camera.embed.bias
    # observed worst error 9e-16
    torch.testing.assert_close(camera(labels), layers(camera, rms_normalize(embedded), 0.01), atol=1e-13, rtol=0)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"expected z of shape \[batch, 6\]"):
        Mapping(CONFIG, 2)(torch.randn(3, 7))
    with pytest.raises(ValueError, match="not conditioned on cameras; leave camera_labels out"):
        Mapping(CONFIG, 2)(torch.randn(3, 6), camera_labels=torch.zeros(3, 25))
    with pytest.raises(ValueError, match="camera conditioning needs label_dim"):
        Mapping(CONFIG, 2, conditional=True)
    conditional = Mapping(MappingConfig(z_dim=6, w_dim=5, label_dim=25), 2, conditional=True)
    with pytest.raises(ValueError, match=r"give camera_labels"):
        conditional(torch.randn(3, 6))
    with pytest.raises(ValueError, match=r"camera_labels of shape \[3, 25\], got \[3, 24\]"):
        conditional(torch.randn(3, 6), camera_labels=torch.zeros(3, 24))
    with pytest.raises(ValueError, match="layers must be >= 1"):
        MappingConfig(layers=0)
