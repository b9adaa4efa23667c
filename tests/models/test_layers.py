"""Equalised layers against their formulas in numpy and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cgsgan.models.layers import Activation, EqualizedConv2d, EqualizedLinear, normalize_second_moment


@pytest.mark.parametrize("activation", ["linear", "leaky_relu"])
@pytest.mark.parametrize("multiplier", [1.0, 0.01])
def test_linear_formula(activation: Activation, multiplier: float) -> None:
    layer = EqualizedLinear(7, 5, activation=activation, lr_multiplier=multiplier, bias_init=2.0).double()
    x = torch.randn(2, 3, 7, dtype=torch.float64)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    y = np.einsum("abi,oi->abo", x.numpy(), weight * multiplier / math.sqrt(7)) + bias * multiplier
    if activation == "leaky_relu":
        y = np.where(y > 0, y, 0.2 * y) * math.sqrt(2)
    # observed worst error 4e-16
    np.testing.assert_allclose(layer(x).detach().numpy(), y, atol=1e-13)


def test_linear_initialisation() -> None:
    layer = EqualizedLinear(300, 200, lr_multiplier=0.01, weight_gain=0.5, bias_init=-1.0)
    assert layer.weight.std().item() == pytest.approx(50, rel=0.02)
    assert (layer.bias == -1).all()
    assert not EqualizedLinear(4, 4, weight_gain=0.0).weight.any()


@pytest.mark.parametrize(("kernel", "gain", "clamp"), [(3, 1.0, None), (1, math.sqrt(0.5), None), (3, 0.7, 0.4)])
def test_convolution_formula(kernel: int, gain: float, clamp: float | None) -> None:
    conv = EqualizedConv2d(3, 4, kernel, activation="leaky_relu", clamp=clamp).double()
    assert conv.bias is not None
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2))
    y = np.zeros((2, 4, 5, 6))
    weight = conv.weight.detach().numpy() / math.sqrt(3 * kernel**2)
    for i in range(kernel):
        for j in range(kernel):
            y += np.einsum("bchw,oc->bohw", padded[:, :, i : i + 5, j : j + 6], weight[:, :, i, j])
    y += conv.bias.detach().numpy()[:, None, None]
    y = np.where(y > 0, y, 0.2 * y) * math.sqrt(2) * gain
    if clamp is not None:
        assert np.abs(y).max() > clamp * gain, "the case must reach the clamp"
        y = y.clip(-clamp * gain, clamp * gain)
    # observed worst error 4e-16
    np.testing.assert_allclose(conv(x, gain=gain).detach().numpy(), y, atol=1e-13)


def test_second_moment() -> None:
    x = torch.randn(4, 9, dtype=torch.float64)
    expected = x / (x.pow(2).sum(dim=1, keepdim=True) / 9 + 1e-8).sqrt()
    torch.testing.assert_close(normalize_second_moment(x), expected)
    assert normalize_second_moment(torch.zeros(1, 3)).eq(0).all()
