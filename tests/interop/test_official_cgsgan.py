"""CGS-GAN's networks in official form: keys, sizes, and what they compute, against formulas on the published keys."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cgsgan.interop import cgsgan_keys, discriminator_keys
from cgsgan.interop.errors import WeightsError
from cgsgan.interop.official import load_cgsgan_discriminator, load_cgsgan_generator
from cgsgan.models.discriminator import Discriminator
from cgsgan.models.gaussian_generator import GaussianGenerator
from cgsgan.models.presets import published_discriminator, published_generator
from tests.interop import official_keys, plain_cgsgan

LEVEL_WIDTHS = (512, 256, 128, 64, 32, 16, 16)
LEVELS = {256: 5, 512: 6, 1024: 7, 2048: 8}
SMALL = {"width": 64, "points": 32, "cells": 8}
SMALL_WIDTHS = (64, 32, 16, 16, 16, 16, 16)


def widths(resolution: int, last: int = 8) -> tuple[int, ...]:
    return (*LEVEL_WIDTHS, last)[: LEVELS[resolution]]


def small_state(resolution: int, last: int = 8) -> dict[str, Tensor]:
    levels = LEVELS[resolution]
    return official_keys.fill(official_keys.cgsgan_generator(levels, (*SMALL_WIDTHS, last)[:levels], **SMALL))


def check(found: Tensor, expected: Tensor) -> None:
    """Float32 against float64. Observed worst 5.2e-5, of a quaternion; plain formulas in float32 are as far off."""
    torch.testing.assert_close(found.double(), expected, atol=5e-5, rtol=1e-5)


def compare(state: dict[str, Tensor], batch: int) -> None:
    """Our float32 network against the plain one in float64."""
    network = load_cgsgan_generator(state)
    z = torch.randn(batch, state["mapping_network.embed.weight"].shape[0])
    output = network(z)
    exact = {key: value.double() for key, value in state.items()}
    w = plain_cgsgan.map_latents(exact, z.double())
    assert output.ws.shape == (batch, network.num_ws, w.shape[1])
    raw, raw_anchors = plain_cgsgan.plain_generator(exact, w[:, None].expand(-1, network.num_ws, -1))
    pixel = 0.5 / network.resolution
    large = torch.cat([a["scale"].exp().amax(dim=2).flatten() > pixel for a in raw_anchors])
    assert 0 < int(large.sum()) < len(large), "both branches of the shrink rule must occur"
    assert (raw["xyz"].abs() == 0.5).any(), "the clamp must occur"
    assert raw["scale"].abs().max() > 5, "the soft limits must be felt"
    check(output.ws, w[:, None].expand_as(output.ws))
    assert len(output.anchors) == len(raw_anchors)
    for ours, theirs in zip((output.gaussians, *output.anchors), (raw, *raw_anchors)):
        for name, value in plain_cgsgan.activate(theirs).items():
            check(getattr(ours, name), value)


def test_published_generator_of_256_px() -> None:
    state = official_keys.fill(official_keys.cgsgan_generator(5, widths(256)))
    compare(state, batch=1)


@pytest.mark.parametrize(("resolution", "last"), [(256, 8), (512, 8), (1024, 8), (2048, 8), (2048, 16)])
def test_generators_of_every_size(resolution: int, last: int) -> None:
    compare(small_state(resolution, last), batch=2)


@pytest.mark.parametrize(
    ("resolution", "last", "keys", "millions"),
    [(256, 8, 334, 54.77), (512, 8, 378, 61.61), (1024, 8, 422, 70.55), (2048, 8, 466, 79.48), (2048, 16, 466, None)],
)
def test_generator_keys(resolution: int, last: int, keys: int, millions: float | None) -> None:
    expected = official_keys.cgsgan_generator(LEVELS[resolution], widths(resolution, last))
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in expected.items()}
        state["point_gen.scale_threshold"] = torch.zeros(3, device="cpu")
        network = GaussianGenerator(cgsgan_keys.infer_config(state))
        form = cgsgan_keys.official_form(network)
    assert len(expected) == keys
    assert form.shapes() == expected
    if millions is not None:
        assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions


def test_inferred_config_is_the_published_one() -> None:
    for resolution in LEVELS:
        with torch.device("meta"):
            network = GaussianGenerator(published_generator(resolution, official=True))
            state = cgsgan_keys.official_form(network).state_dict()
        state["point_gen.scale_threshold"] = torch.full((3,), math.log(0.5 / math.sqrt(512)))
        assert cgsgan_keys.infer_config(state) == published_generator(resolution, official=True)
    with torch.device("meta"):
        for resolution in (256, 512):
            network = Discriminator(published_discriminator(resolution, official=True))
            state = discriminator_keys.official_form(network).state_dict()
            found = discriminator_keys.infer_config(state, dual=False)
            assert found == published_discriminator(resolution, official=True)


@pytest.mark.parametrize(("resolution", "keys", "parameters"), [(256, 91, 36_222_592), (512, 100, 36_341_312)])
def test_discriminator_keys(resolution: int, keys: int, parameters: int) -> None:
    expected = official_keys.discriminator(resolution, dual=False)
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in expected.items()}
        network = Discriminator(discriminator_keys.infer_config(state, dual=False))
        form = discriminator_keys.official_form(network)
    assert len(expected) == keys
    assert form.shapes() == expected
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_snapshots_with_label_statistics() -> None:
    state = small_state(256)
    plain = load_cgsgan_generator(state).state_dict()
    with_statistics = load_cgsgan_generator(state | {"dataset_label_std": torch.ones(25)}).state_dict()
    assert all(torch.equal(plain[key], with_statistics[key]) for key in plain)


def test_other_start_values_are_taken_over() -> None:
    """They are buffers of the published network, usually -5, (1, 0, 0, 0), 0 and logit(0.1)."""
    state = small_state(256)
    for name, value in (("scale", -4.0), ("color", 0.7), ("opacity", -1.0)):
        state[f"point_gen.{name}_init"].fill_(value)
    state["point_gen.scale_init"][1] = -4.5
    state["point_gen.rotation_init"] = torch.tensor([2, 0, 1, 0])
    state["point_gen.scale_threshold"].fill_(-3.0)
    compare(state, batch=1)


def test_truncation() -> None:
    state = small_state(256)
    z = torch.randn(2, 64)
    exact = {key: value.double() for key, value in state.items()}
    w = plain_cgsgan.map_latents(exact, z.double())
    average = exact["mapping_network.w_avg"]
    expected = average + 0.6 * (w - average)
    found = load_cgsgan_generator(state)(z, truncation_psi=0.6).ws.double()
    # observed 4.2e-7
    torch.testing.assert_close(found, expected[:, None].expand_as(found), atol=1e-5, rtol=0)


def test_rows_of_ws_belong_to_their_blocks() -> None:
    state = small_state(256)
    ws = torch.randn(1, 10, 64)
    exact = {key: value.double() for key, value in state.items()}
    expected = plain_cgsgan.activate(plain_cgsgan.plain_generator(exact, ws.double())[0])["means"]
    network = load_cgsgan_generator(state)
    torch.testing.assert_close(network(ws=ws).gaussians.means.double(), expected, atol=5e-5, rtol=0)
    assert not torch.allclose(network(ws=ws.flip(1)).gaussians.means.double(), expected, atol=1e-3)


@pytest.mark.parametrize(("resolution", "divide", "batch"), [(256, 16, 8), (512, 16, 3), (64, 4, 4)])
def test_discriminator_against_the_formulas(resolution: int, divide: int, batch: int) -> None:
    state = official_keys.fill(official_keys.discriminator(resolution, dual=False, divide=divide))
    images, labels = torch.rand(batch, 3, resolution, resolution), torch.randn(batch, 25)
    logits = load_cgsgan_discriminator(state)(images, labels)
    exact = {key: value.double() for key, value in state.items()}
    expected = plain_cgsgan.plain_discriminator(exact, images.double() * 2 - 1, labels.double())
    assert logits.shape == (batch, 1)
    assert expected.std() > 0.05
    # observed worst 3e-7; with the published 512 channels 1.3e-6
    torch.testing.assert_close(logits.double(), expected, atol=5e-5, rtol=0)


def test_discriminator_clamps() -> None:
    state = official_keys.fill(official_keys.discriminator(32, dual=False, divide=32))
    state["b32.fromrgb.bias"] += 400
    images, labels = torch.rand(2, 3, 32, 32), torch.randn(2, 25)
    exact = {key: value.double() for key, value in state.items()}
    expected = plain_cgsgan.plain_discriminator(exact, images.double() * 2 - 1, labels.double())
    logits = load_cgsgan_discriminator(state)(images, labels)
    torch.testing.assert_close(logits.double(), expected, atol=1e-4, rtol=1e-5)


def changed(state: dict[str, Tensor], **changes: Any) -> dict[str, Tensor]:
    state = dict(state)
    for key, value in changes.items():
        if value is None:
            del state[key.replace("__", ".")]
        else:
            state[key.replace("__", ".")] = value
    return state


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mapping_network__w_avg": None}, r"missing: mapping_network\.w_avg$"),
        ({"_xyz": None}, "expected _xyz with 2 dimensions, it is missing"),
        ({"extra__weight": torch.zeros(1)}, r"unknown: extra\.weight$"),
        ({"dataset_label_std": torch.zeros(3)}, r"of another shape: dataset_label_std \[3\] instead of \[25\]"),
        ({"point_gen__anchors__xyz__4__bias": torch.zeros(4)}, r"anchors\.xyz\.4\.bias \[4\] instead of \[3\]"),
        ({"point_gen__upsample_layers__0__subpixel__weight": torch.zeros(1, 10**6)}, "mlp_ratio.* must be >= 1"),
        ({"point_gen__upsample_layers__0__subpixel__weight": torch.zeros(1, 63)}, "must divide width"),
        ({"point_gen__upsample_layers__0__subpixel__weight": torch.zeros(1, 0)}, "must divide width"),
        ({"point_gen__upsample_layers__4__subpixel__weight": None}, "expected 5 to 8 levels .* found 4"),
        ({"point_gen__scale_threshold": torch.tensor([-3.0, -3.0, -4.0])}, "one number three times"),
        ({"point_gen__transformer__resblocks__1__ls_1__bias": None, "new\nline": torch.zeros(1)}, r"'new\\nline'"),
    ],
)
def test_other_generators_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsError, match=words) as caught:
        load_cgsgan_generator(changed(small_state(256), **changes))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"b64__fromrgb__weight": None}, "expected b512.fromrgb.weight, or that of another size"),
        ({"b8_pose__skip__weight": None}, r"missing: b8_pose\.skip\.weight$"),
        ({"b16__resample_filter": torch.ones(4, 4)}, r"of an unknown value: b16\.resample_filter$"),
        (
            {"b64__fromrgb__weight": torch.zeros(16, 6, 1, 1)},
            r"\[16, 6, 1, 1\] instead of \[16, 3, 1, 1\]",
        ),
    ],
)
def test_other_discriminators_are_refused(changes: dict[str, Any], words: str) -> None:
    state = official_keys.fill(official_keys.discriminator(64, dual=False, divide=32))
    with pytest.raises(WeightsError, match=words):
        load_cgsgan_discriminator(changed(state, **changes))


def test_networks_are_not_taken_for_each_other() -> None:
    state = official_keys.fill(official_keys.discriminator(64, dual=False, divide=32))
    with pytest.raises(WeightsError, match="not the weights of a CGS-GAN generator"):
        load_cgsgan_generator(state)
    with pytest.raises(WeightsError, match="not the weights of a CGS-GAN discriminator"):
        load_cgsgan_discriminator(small_state(256))
