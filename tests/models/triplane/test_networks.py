"""The tri-plane networks and their blocks, in float64 and with fixed weights, against plain ones; gradients too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cgsgan.models.triplane import resampling
from cgsgan.models.triplane.decoder import Decoder, DecoderConfig
from cgsgan.models.triplane.modulation import Noise, StyledConv, SynthesisSettings, ToImage
from cgsgan.models.triplane.superresolution import SuperResolution, SuperResolutionConfig
from cgsgan.models.triplane.synthesis import Backbone, BackboneConfig
from tests.models.triplane import plain_networks as plain

SETTINGS = SynthesisSettings(w_dim=5, image_channels=3, noise="constant", clamp=None)
BACKBONE = BackboneConfig(resolution=16, plane_channels=2, channels=(6, 5, 4))


def waves(*shape: int, phase: float = 0.3) -> Tensor:
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(count, dtype=torch.float64) * 1.3 + phase).reshape(shape)


def compare(module: nn.Module, ours: Callable[[], Tensor], theirs: Callable[[], Tensor], inputs: list[Tensor]) -> None:
    """Values and the gradients of every input and parameter, of a sum with uneven weights."""
    leaves = [x.requires_grad_() for x in inputs] + [p for p in module.parameters() if p.requires_grad]
    values, gradients = [], []
    for function in (ours, theirs):
        value = function()
        weights = torch.cos(torch.arange(value.numel(), dtype=torch.float64)).reshape(value.shape)
        values.append(value.detach())
        gradients.append(torch.autograd.grad((value * weights).sum(), leaves))
    assert values[1].std() > 0.05
    # observed worst errors: values 2e-15, gradients 3e-14
    torch.testing.assert_close(values[0], values[1], atol=1e-11, rtol=0)
    for ours_gradient, plain_gradient in zip(*gradients):
        assert plain_gradient.any()
        torch.testing.assert_close(ours_gradient, plain_gradient, atol=1e-10, rtol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(ours(), values[1], atol=1e-11, rtol=0)


def test_upsampling_an_image() -> None:
    image = waves(2, 3, 5, 7)
    expected = torch.stack([plain.double_image(i) for i in image])
    # observed worst error 1e-16
    torch.testing.assert_close(resampling.upsample_image(image), expected, atol=1e-14, rtol=0)


def test_upsampling_convolution() -> None:
    x, weight, bias = waves(2, 3, 5, 7), waves(4, 3, 3, 3), waves(4)
    expected = torch.stack([plain.convolve_double(sample, weight) for sample in x]) + bias[:, None, None]
    assert not torch.allclose(expected, torch.stack([plain.convolve_double(s, weight.flip(2, 3)) for s in x]))
    # observed worst error 1e-15
    torch.testing.assert_close(resampling.convolve_upsampling(x, weight, bias), expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("sizes", [(5, 8), (8, 5), (6, 6), (4, 16)])
def test_resizing(sizes: tuple[int, int]) -> None:
    x = waves(2, 3, sizes[0], sizes[0] + 1)
    # observed worst error 2e-16
    torch.testing.assert_close(resampling.resize(x, sizes[1]), plain.resize(x, sizes[1]), atol=1e-13, rtol=0)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize(("noise", "clamp"), [("constant", None), ("none", 1.0)])
def test_styled_convolution(batch: int, up: bool, noise: Noise, clamp: float | None) -> None:
    settings = replace(SETTINGS, noise=noise, clamp=clamp)
    layer = plain.fill(StyledConv(4, 3, size=12 if up else 6, settings=settings, up=up))
    x, w = waves(batch, 4, 6, 6), waves(batch, 5, phase=1.0)

    def expected() -> Tensor:
        return plain.styled_conv(layer, x, w, up=up, noise=noise == "constant", clamp=clamp)

    assert clamp is None or expected().abs().max() == clamp, "the case must reach the clamp"
    compare(layer, lambda: layer(x, w), expected, [x, w])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("clamp", [None, 0.8])
def test_to_image(batch: int, clamp: float | None) -> None:
    layer = plain.fill(ToImage(4, replace(SETTINGS, clamp=clamp)))
    x, w = waves(batch, 4, 5, 6), waves(batch, 5, phase=1.0)
    compare(layer, lambda: layer(x, w), lambda: plain.to_image(layer, x, w, clamp), [x, w])


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("noise", ["constant", "none"])
def test_backbone(batch: int, noise: Noise) -> None:
    network = plain.fill(Backbone(replace(BACKBONE, noise=noise), 5))
    ws = waves(batch, 6, 5)
    compare(network, lambda: network(ws), lambda: plain.backbone(network, ws), [ws])


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("resolution", [16, 32])
@pytest.mark.parametrize("raw_size", [4, 8, 12])
def test_super_resolution(batch: int, resolution: int, raw_size: int) -> None:
    config = SuperResolutionConfig(input_resolution=8, channels=(6, 4), clamp=2.0)
    network = plain.fill(SuperResolution(config, resolution=resolution, features=5, w_dim=5))
    features, ws = waves(batch, 5, raw_size, raw_size), waves(batch, 3, 5)
    raw = waves(batch, 3, raw_size, raw_size, phase=2.0)
    compare(
        network,
        lambda: network(raw, features, ws),
        lambda: plain.super_resolution(network, raw, features, ws),
        [raw, features, ws],
    )


def test_super_resolution_may_use_its_noise() -> None:
    config = SuperResolutionConfig(input_resolution=4, channels=(3, 2), noise="constant", clamp=None)
    network = plain.fill(SuperResolution(config, resolution=16, features=3, w_dim=5))
    arguments = waves(1, 3, 4, 4), waves(1, 3, 4, 4, phase=1.0), waves(1, 2, 5)
    assert all(p.requires_grad for p in network.parameters())
    torch.testing.assert_close(network(*arguments), plain.super_resolution(network, *arguments), atol=1e-11, rtol=0)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4)])
def test_decoder(shape: tuple[int, ...]) -> None:
    network = plain.fill(Decoder(DecoderConfig(width=7, features=5), 4))
    x = waves(*shape) * 3
    compare(network, lambda: torch.cat(network(x), dim=-1), lambda: torch.cat(plain.decode(network, x), dim=-1), [x])
    densities, colors = network(x)
    assert densities.shape == (*shape[:-1], 1)
    assert colors.shape == (*shape[:-1], 5)


def test_feature_maps_stay_in_channels_last_memory() -> None:
    network = Backbone(BACKBONE, 5)
    seen: list[Tensor] = []
    for layer in network.modules():
        if isinstance(layer, StyledConv | ToImage):
            layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    for batch in (1, 3):
        planes = network(torch.randn(batch, 6, 5))
        seen.append(planes.flatten(1, 2))
    assert len(seen) == 2 * 9
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)


def test_bfloat16_autocast() -> None:
    network = Backbone(BACKBONE, 5)
    for batch in (1, 2):
        ws = torch.randn(batch, 6, 5)
        exact = network(ws)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network(ws)
        assert not torch.equal(rough, exact)
        # observed worst difference 0.04, at planes of standard deviation 1.9
        torch.testing.assert_close(rough.float(), exact, atol=0.3, rtol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BackboneConfig(resolution=48), "power of two of at least 8 px, got 48"),
        (
            lambda: BackboneConfig(resolution=16, channels=(4, 4)),
            r"expected 3 channels >= 1, for blocks of \[4, 8, 16\]",
        ),
        (lambda: BackboneConfig(plane_channels=0), "plane_channels must be >= 1, got 0"),
        (lambda: DecoderConfig(features=2), "features >= 3"),
        (lambda: SuperResolutionConfig(channels=(4, 0)), "sizes must be >= 1"),
        (
            lambda: SuperResolution(SuperResolutionConfig(), resolution=1024, features=3, w_dim=4),
            r"2 or 4 times input_resolution \(128\), got 1024",
        ),
    ],
)
def test_wrong_configurations(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
