"""The discriminator against a plain one, its statistics, gradients of gradients and precision."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cgsgan.models.discriminator import Discriminator, DiscriminatorConfig
from cgsgan.models.discriminator_blocks import append_minibatch_std
from cgsgan.models.discriminator_inputs import append_coordinates, check_raw_images, to_channels_last
from cgsgan.models.layers import EqualizedConv2d
from tests.models.triplane import plain_networks

FIR_FORM = DiscriminatorConfig(
    resolution=16, channels=(4, 5, 6), camera_width=7, camera_layers=2, label_dim=25, clamp=1.0
)
AVERAGE_FORM = replace(FIR_FORM, resolution=32, unshuffle=2, downsample="average", clamp=None)
DUAL_FORM = replace(FIR_FORM, dual=True)
FORMS = {"fir": FIR_FORM, "average": AVERAGE_FORM}


def randomized(config: DiscriminatorConfig, dtype: torch.dtype = torch.float64) -> Discriminator:
    discriminator = Discriminator(config).to(dtype)
    with torch.no_grad():
        for name, parameter in discriminator.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
    discriminator.set_label_statistics(torch.randn(25).to(dtype), torch.rand(25).to(dtype) + 0.5)
    return discriminator


def inputs(config: DiscriminatorConfig, batch: int = 8) -> tuple[Tensor, Tensor]:
    size = config.resolution
    images = torch.rand(batch, 3, size, size, dtype=torch.float64) * 2 - 1
    return images, torch.randn(batch, 25, dtype=torch.float64)


def correlate(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Valid correlation, a product per tap."""
    k = weight.shape[2]
    size = (x.shape[2] - k) // stride + 1
    result = x.new_zeros(x.shape[0], weight.shape[0], size, size)
    for i in range(k):
        for j in range(k):
            window = x[:, :, i : i + stride * (size - 1) + 1 : stride, j : j + stride * (size - 1) + 1 : stride]
            result = result + torch.einsum("bchw,oc->bohw", window, weight[:, :, i, j])
    return result


def fir(x: Tensor, padding: int) -> Tensor:
    kernel = torch.tensor([[a * b / 64 for b in (1, 3, 3, 1)] for a in (1, 3, 3, 1)], dtype=x.dtype)
    channels = [correlate(functional.pad(x, [padding] * 4)[:, [c]], kernel[None, None], 1) for c in range(x.shape[1])]
    return torch.cat(channels, dim=1)


def pool(x: Tensor) -> Tensor:
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def convolve(conv: EqualizedConv2d, x: Tensor, *, stride: int = 1, padding: int, gain: float = 1.0) -> Tensor:
    fan_in = conv.weight[0].numel()
    y = correlate(functional.pad(x, [padding] * 4), conv.weight / math.sqrt(fan_in), stride)
    if conv.bias is not None:
        y = y + conv.bias[:, None, None]
        y = torch.where(y > 0, y, 0.2 * y) * math.sqrt(2)
    y = y * gain
    return y if conv.clamp is None else y.clamp(-conv.clamp * gain, conv.clamp * gain)


def plain_std(x: Tensor, group: int) -> Tensor:
    """For image n the group is every image with the same remainder by batch / group."""
    batch, count = x.shape[0], x.shape[0] // group
    planes = []
    for n in range(batch):
        members = x[n % count :: count]
        assert len(members) == group
        variance = members.pow(2).mean(dim=0) - members.mean(dim=0) ** 2
        planes.append((variance + 1e-8).sqrt().mean().expand(1, 1, *x.shape[2:]))
    return torch.cat([x, torch.cat(planes)], dim=1)


def plain_discriminator(d: Any, images: Tensor, labels: Tensor) -> Tensor:
    config = d.config
    x = images
    if config.unshuffle == 2:
        corners = [x[:, :, i::2, j::2] for i in range(2) for j in range(2)]
        x = torch.stack(corners, dim=2).flatten(1, 2)
    x = convolve(d.from_rgb, x, padding=d.from_rgb.weight.shape[2] // 2)
    for block in d.blocks:
        half, hidden = math.sqrt(0.5), convolve(block.conv0, x, padding=1)
        if config.downsample == "fir":
            skip = convolve(block.skip, fir(x, 1)[..., ::2, ::2], padding=0, gain=half)
            main = convolve(block.conv1, fir(hidden, 2), padding=0, stride=2, gain=half)
        else:
            skip = convolve(block.skip, pool(x), padding=0, gain=half)
            main = convolve(block.conv1, pool(hidden), padding=1, gain=half)
        x = skip + main
    x = convolve(d.epilogue.conv, plain_std(x, 4), padding=1).flatten(1)
    fc, out = d.epilogue.fc, d.epilogue.out
    x = x @ (fc.weight / math.sqrt(x.shape[1])).T + fc.bias
    x = torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)
    x = x @ (out.weight / math.sqrt(x.shape[1])).T + out.bias
    camera = d.camera((labels - d.label_mean) / d.label_std)
    return (x * camera).sum(dim=1, keepdim=True) / math.sqrt(config.camera_width)


@pytest.mark.parametrize("form", FORMS)
def test_equals_the_plain_discriminator(form: str) -> None:
    discriminator = randomized(FORMS[form])
    images, labels = inputs(FORMS[form])
    # observed worst error 2e-15
    expected = plain_discriminator(discriminator, images, labels)
    assert expected.std() > 1e-3
    torch.testing.assert_close(discriminator(images, labels), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("raw_size", [8, 12, 16, 24])
def test_dual_form_equals_the_plain_discriminator(raw_size: int) -> None:
    discriminator = randomized(DUAL_FORM)
    images, labels = inputs(DUAL_FORM)
    raw = torch.rand(8, 3, raw_size, raw_size, dtype=torch.float64) * 2 - 1
    both = torch.cat([images, plain_networks.resize(raw, 16)], dim=1)
    expected = plain_discriminator(discriminator, both, labels)
    assert expected.std() > 1e-3
    # observed worst error 2e-16
    torch.testing.assert_close(discriminator(images, labels, raw), expected, atol=1e-12, rtol=0)


def test_dual_form_with_unshuffled_pictures() -> None:
    config = replace(AVERAGE_FORM, dual=True)
    discriminator = randomized(config)
    images, labels = inputs(config)
    raw = torch.rand(8, 3, 16, 16, dtype=torch.float64) * 2 - 1
    both = torch.cat([images, plain_networks.resize(raw, 32)], dim=1)
    expected = plain_discriminator(discriminator, both, labels)
    torch.testing.assert_close(discriminator(images, labels, raw), expected, atol=1e-12, rtol=0)


def test_minibatch_std_groups_are_interleaved() -> None:
    x = torch.zeros(8, 2, 1, 1)
    x[0] = x[2] = 1.0
    statistic = append_minibatch_std(x, 4)[:, 2, 0, 0]
    torch.testing.assert_close(statistic[::2], torch.full((4,), 0.5))
    torch.testing.assert_close(statistic[1::2], torch.full((4,), 1e-4))
    assert append_minibatch_std(x[:3], 4).shape == (3, 3, 1, 1)


@pytest.mark.parametrize("form", [FIR_FORM, AVERAGE_FORM, DUAL_FORM], ids=["fir", "average", "dual"])
def test_r1_penalty_has_the_right_gradient(form: DiscriminatorConfig) -> None:
    """The directional derivative of the squared input gradients, against central differences; the dual form has two."""
    config = replace(form, clamp=None)
    discriminator = randomized(config)
    images, labels = inputs(config, batch=4)
    raw = [torch.rand(4, 3, 6, 6, dtype=torch.float64)] if config.dual else []

    def penalty() -> Tensor:
        x, *small = (pictures.clone().requires_grad_() for pictures in (images, *raw))
        gradients = torch.autograd.grad(discriminator(x, labels, *small).sum(), [x, *small], create_graph=True)
        return torch.stack([gradient.square().sum() for gradient in gradients]).sum()

    parameters = [p for n, p in discriminator.named_parameters() if n.endswith("weight")]
    gradients = torch.autograd.grad(penalty(), parameters)
    directions = [torch.randn_like(p) for p in parameters]
    slope = sum((g * d).sum().item() for g, d in zip(gradients, directions))
    values, step = [], 1e-6
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions):
                parameter.add_(direction, alpha=sign * step)
        values.append(penalty().item())
    # observed relative error 1e-8; kinks of the leaky ReLU are met with probability near zero
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


@pytest.mark.parametrize("dead_block", [False, True])
def test_gradients_reach_every_parameter_but_the_dead_block(dead_block: bool) -> None:
    discriminator = randomized(replace(FIR_FORM, dead_block=dead_block))
    discriminator(*inputs(FIR_FORM)).square().sum().backward()
    dead = {n for n, p in discriminator.named_parameters() if p.grad is None or not p.grad.any()}
    frozen = {n for n, p in discriminator.named_parameters() if not p.requires_grad}
    names = {"conv0.weight", "conv0.bias", "conv1.weight", "conv1.bias", "skip.weight"}
    assert dead == frozen == ({f"dead_block.{name}" for name in names} if dead_block else set())


def test_label_statistics() -> None:
    config = replace(FIR_FORM, clamp=None)
    discriminator = randomized(config, torch.float32)
    images, labels = inputs(config)
    images, labels = images.float(), labels.float()
    mean, std = labels.mean(dim=0), labels.std(dim=0)
    labels[:, 3], mean[3], std[3] = 0.7, 0.7, 0.0
    discriminator.set_label_statistics(torch.zeros(25), torch.ones(25))
    standardised = (labels - mean) / torch.where(std > 0, std, 1.0)
    expected = discriminator(images, standardised)
    discriminator.set_label_statistics(mean, std)
    # observed worst error 0
    torch.testing.assert_close(discriminator(images, labels), expected, atol=1e-5, rtol=0)
    assert {"label_mean", "label_std"} <= set(discriminator.state_dict())


def test_unshuffle_lies_in_channels_last_memory() -> None:
    images = torch.randn(2, 3, 8, 8)
    for factor in (1, 2, 4):
        x = to_channels_last(images, factor)
        assert x.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(functional.pixel_shuffle(x, factor), images)


def test_outer_autocast_changes_nothing() -> None:
    discriminator = randomized(AVERAGE_FORM, torch.float32)
    images, labels = (t.float() for t in inputs(AVERAGE_FORM))
    exact = discriminator(images, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(discriminator(images, labels), exact)


def test_bfloat16_blocks_on_the_cpu() -> None:
    discriminator = randomized(AVERAGE_FORM, torch.float32)
    half = Discriminator(replace(AVERAGE_FORM, half_on_cpu=True, half_dtype="bfloat16", half_precision_blocks=1))
    half.load_state_dict(discriminator.state_dict())
    images, labels = (t.float() for t in inputs(AVERAGE_FORM))
    exact, rough = discriminator(images, labels), half(images, labels)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    # observed worst difference 0.001, at logits of standard deviation 0.15
    torch.testing.assert_close(rough, exact, atol=0.02, rtol=0)
    rough.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in half.parameters())


@pytest.mark.gpu
def test_float16_blocks_on_cuda() -> None:
    discriminator = randomized(replace(FIR_FORM, clamp=256.0, half_precision_blocks=1), torch.float32)
    images, labels = (t.float() for t in inputs(FIR_FORM))
    exact = discriminator(images, labels)
    rough = discriminator.cuda()(images.cuda(), labels.cuda())
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.cpu(), exact, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 48}, "power of two"),
        ({"resolution": 8, "unshuffle": 2}, "at least 16 px with unshuffle 2, got 8"),
        ({"unshuffle": 3}, "unshuffle must be 1, 2 or 4, got 3"),
        ({"channels": (4, 5)}, r"expected 3 channels, for feature maps of \[16, 8, 4\] px"),
        ({"half_on_cpu": True}, "half_on_cpu needs half_dtype bfloat16, got float16"),
    ],
)
def test_wrong_configurations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(FIR_FORM, **changes)


def test_wrong_inputs() -> None:
    discriminator = Discriminator(FIR_FORM)
    with pytest.raises(ValueError, match=r"images of shape \[batch, 3, 16, 16\], got \[8, 3, 8, 8\]"):
        discriminator(torch.zeros(8, 3, 8, 8), torch.zeros(8, 25))
    with pytest.raises(ValueError, match=r"camera_labels of shape \[8, 25\], got \[8, 24\]"):
        discriminator(torch.zeros(8, 3, 16, 16), torch.zeros(8, 24))
    with pytest.raises(ValueError, match=r"multiple of minibatch_std_group \(4\) or smaller, got 6"):
        discriminator(torch.zeros(6, 3, 16, 16), torch.zeros(6, 25))
    with pytest.raises(ValueError, match="it is not dual; leave raw_images out"):
        discriminator(torch.zeros(4, 3, 16, 16), torch.zeros(4, 25), torch.zeros(4, 3, 8, 8))
    dual = Discriminator(DUAL_FORM)
    with pytest.raises(ValueError, match="it is dual; give raw_images"):
        dual(torch.zeros(4, 3, 16, 16), torch.zeros(4, 25))
    with pytest.raises(ValueError, match=r"raw_images of shape \[4, 3, height, width\], got \[2, 3, 8, 8\]"):
        check_raw_images(torch.zeros(2, 3, 8, 8), torch.zeros(4, 3, 16, 16), dual=True)
    with pytest.raises(ValueError, match=r"label statistics of shape \[25\]"):
        discriminator.set_label_statistics(torch.zeros(24), torch.ones(24))


def test_coordinates_are_minus_one_to_one_in_x_and_y():
    x = torch.rand(2, 3, 5, 4, dtype=torch.float64)
    found = append_coordinates(x)
    assert torch.equal(found[:, :3], x)
    for row in range(5):
        for column in range(4):
            assert found[1, 3, row, column] == pytest.approx(-1 + 2 * column / 3, abs=1e-15)
            assert found[0, 4, row, column] == pytest.approx(-1 + 2 * row / 4, abs=1e-15)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", ["input", "blocks"])
def test_coordinates_reach_the_convolutions_they_should(form: str, where: Any):
    """With the weights of the coordinates at 0 it is the network without; every one of those weights counts."""
    config = replace(FORMS[form], coordinates=where)
    torch.manual_seed(0)
    placed, plain = randomized(config), randomized(FORMS[form])
    images, labels = inputs(config)
    wide = {name for name, p in plain.named_parameters() if p.shape != dict(placed.named_parameters())[name].shape}
    expected = {"from_rgb.weight"}
    if where == "blocks":
        expected |= {f"blocks.{i}.{conv}.weight" for i in range(2) for conv in ("conv0", "conv1")}
    assert wide == expected
    logits = placed(images, labels)
    logits.sum().backward()
    state = dict(plain.state_dict())
    for name in wide:
        gradient = dict(placed.named_parameters())[name].grad
        assert gradient is not None
        assert bool((gradient[:, -2:].abs().sum(dim=(0, 2, 3)) > 0).all()), name
        weight = state[name]
        # Equalised learning rate: the run-time factor falls as the input grows.
        factor = ((weight.shape[1] + 2) / weight.shape[1]) ** 0.5
        state[name] = torch.cat([weight * factor, torch.zeros_like(weight[:, :2])], dim=1)
    placed.load_state_dict(state)
    torch.testing.assert_close(placed(images, labels), plain(images, labels), rtol=1e-5, atol=1e-6)  # observed 4e-7


def test_heads_are_linear_in_the_last_features():
    config = replace(AVERAGE_FORM, pose_head=True, latent_head=6)
    discriminator = randomized(config)
    images, labels = inputs(config)
    seen: list[Tensor] = []
    discriminator.epilogue.fc.register_forward_hook(lambda *found: seen.append(found[2]))
    found = discriminator.judge(images, labels)
    assert torch.equal(found.logits, discriminator(images, labels))
    for name, told in (("pose", found.pose), ("latent", found.latent)):
        layer = getattr(discriminator.epilogue, name)
        expected = seen[0] @ layer.weight.T / math.sqrt(layer.weight.shape[1]) + layer.bias
        torch.testing.assert_close(told, expected, rtol=1e-5, atol=1e-6)
    assert found.pose is not None
    assert found.pose.shape == (8, 2)
