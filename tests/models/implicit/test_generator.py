"""pi-GAN's generator: against the plain one, its start, truncation, styles, gradients, errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cgsgan.field_scenes import ConditionedField
from cgsgan.models.implicit.field import FieldConfig
from cgsgan.models.implicit.generator import ImplicitGenerator, ImplicitGeneratorConfig
from cgsgan.models.mapping import MappingConfig
from cgsgan.types import ImplicitScenes
from tests.models.implicit import plain_networks as plain

MAPPING = MappingConfig(z_dim=6, w_dim=5, layers=3, lr_multiplier=0.5, normalize=False)
TINY = ImplicitGeneratorConfig(
    resolution=8, mapping=MAPPING, field=FieldConfig(width=7, layers=3, box_size=0.8, head_gain=4.0, density_bias=-0.5)
)


def tiny(config: ImplicitGeneratorConfig = TINY) -> Any:
    torch.manual_seed(1)
    return ImplicitGenerator(config).double()


def latents(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def places(batch: int = 2, points: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    x, d = (torch.randn(batch, points, 3, dtype=torch.float64, generator=random) for _ in range(2))
    return x * 0.2, torch.nn.functional.normalize(d, dim=-1)


def test_equals_the_plain_generator() -> None:
    generator, z, (points, directions) = tiny(), latents(), places()
    output = generator(z)
    scenes = output.scenes
    densities, colors = scenes.read(points, directions, *scenes.tensors())
    for b in range(2):
        w = plain.styles(generator, z[b].numpy())
        frequencies, phases = plain.modulation(generator, w)
        # observed worst errors 1e-15 and 2e-14
        np.testing.assert_allclose(plain.array(output.ws[b]), np.tile(w, (4, 1)), atol=1e-12)
        np.testing.assert_allclose(plain.array(scenes.frequencies[b]), frequencies, atol=1e-11)
        np.testing.assert_allclose(plain.array(scenes.phases[b]), phases, atol=1e-12)
        for p in range(5):
            density, color = plain.field(
                generator.field, points[b, p].numpy(), directions[b, p].numpy(), frequencies, phases
            )
            np.testing.assert_allclose(plain.array(densities[b, p, 0]), density, atol=1e-10)
            np.testing.assert_allclose(plain.array(colors[b, p]), color, atol=1e-11)


def test_the_published_network_starts_as_published() -> None:
    torch.manual_seed(0)
    generator = ImplicitGenerator(ImplicitGeneratorConfig())
    scenes = generator(torch.randn(64, 256)).scenes
    assert scenes.frequencies.shape == (64, 9, 256)
    assert abs(float(scenes.frequencies.detach().mean()) - 30) < 0.5  # observed 30.0
    assert 3 < float(scenes.frequencies.detach().std()) < 8  # observed 5.2
    assert abs(float(scenes.phases.detach().mean())) < 0.05
    first, *others = generator.field.layers
    assert float(first.weight.detach().abs().max()) <= 1 / 3  # type: ignore[union-attr]
    for layer in others:
        weight = layer.weight.detach()  # type: ignore[union-attr]
        bound = (6 / 256) ** 0.5 / 25
        assert float(weight.abs().max()) <= bound
        assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    # Units are spread over the sine, layer after layer, as SIREN's theorem promises: standard deviation sqrt(1/2).
    x = torch.rand(1, 4096, 3) * 2 - 1
    for index, layer in enumerate(generator.field.layers):
        weight, bias = layer.modulated(scenes.frequencies[:1, index], scenes.phases[:1, index])  # type: ignore[operator]
        x = torch.baddbmm(bias, x, weight).sin()
        assert 0.6 < float(x.detach().std()) < 0.75  # observed 0.69 to 0.71


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    points=st.integers(1, 9),
    width=st.integers(1, 6),
    layers=st.integers(1, 4),
    z_dim=st.integers(1, 5),
)
def test_shapes(batch: int, points: int, width: int, layers: int, z_dim: int) -> None:
    config = replace(TINY, mapping=replace(MAPPING, z_dim=z_dim), field=FieldConfig(width=width, layers=layers))
    generator = ImplicitGenerator(config)
    output = generator(torch.randn(batch, z_dim))
    assert output.ws.shape == (batch, layers + 1, 5)
    assert generator.num_ws == layers + 1
    densities, colors = output.scenes.read(*(torch.randn(batch, points, 3),) * 2, *output.scenes.tensors())
    assert densities.shape == (batch, points, 1)
    assert colors.shape == (batch, points, 3)
    assert isinstance(output.scenes, ImplicitScenes)
    assert isinstance(output.scenes.read, ConditionedField)


def test_truncation_is_around_mean_frequencies_and_phases() -> None:
    generator = tiny()
    generator(latents(64), update_w_average=True)
    generator.mapping.w_average.mul_(500)  # the mean of that batch: 1 - 0.998 of it was taken
    z = latents(64)
    full, half = generator(z).scenes, generator(z, truncation_psi=0.5).scenes
    for ours, whole in zip(half.tensors(), full.tensors()):
        mean = whole.mean(dim=0)
        torch.testing.assert_close(ours, mean + 0.5 * (whole - mean), atol=1e-9, rtol=0)  # observed 2e-13
    cut = generator(z, truncation_psi=0.5, truncation_cutoff=1).scenes
    assert torch.equal(cut.frequencies[:, 1:], full.frequencies[:, 1:])
    torch.testing.assert_close(cut.frequencies[:, 0], half.frequencies[:, 0], atol=1e-12, rtol=0)


def test_a_style_row_rules_its_layer() -> None:
    generator = tiny()
    ws = generator(latents()).ws.clone()
    before = generator(ws=ws).scenes
    ws[:, 2] += 1
    after = generator(ws=ws).scenes
    changed = [bool((a != b).any()) for a, b in zip(after.phases.unbind(1), before.phases.unbind(1))]
    assert changed == [False, False, True, False]
    torch.testing.assert_close(before.frequencies, generator(latents()).scenes.frequencies)


def test_density_is_the_same_from_all_sides_and_colour_is_not() -> None:
    scenes = tiny()(latents()).scenes
    points, directions = places()
    one, other = (scenes.read(points, d, *scenes.tensors()) for d in (directions, -directions))
    assert torch.equal(one[0], other[0])
    assert (one[1] - other[1]).abs().max() > 1e-3


def test_gradients_reach_every_parameter_and_the_latents() -> None:
    generator, z = tiny(), latents().requires_grad_()
    points, directions = (x.requires_grad_() for x in places())
    scenes = generator(z).scenes
    densities, colors = scenes.read(points, directions, *scenes.tensors())
    (densities.square().sum() + colors.square().sum()).backward()
    reached = {"z": z, "points": points, "directions": directions, **dict(generator.named_parameters())}
    assert [name for name, tensor in reached.items() if tensor.grad is None or not tensor.grad.any()] == []
    assert generator.position_parameters() == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FieldConfig(width=0), "field: expected width and layers >= 1, got 0 and 8"),
        (lambda: FieldConfig(box_size=0.0), "field: expected box_size > 0, got 0.0"),
        (lambda: FieldConfig(weight_frequency=-1.0), "field: expected weight_frequency > 0, got -1.0"),
        (lambda: replace(TINY, modulation_gain=0.0), "generator: expected modulation_gain > 0, got 0.0"),
        (lambda: replace(TINY, resolution=0), "generator: resolution must be >= 1, got 0"),
        (lambda: replace(TINY, mapping=MappingConfig(label_dim=25)), "does not look at cameras; expected"),
        (lambda: tiny().forward(), "give either z or ws"),
        (lambda: tiny()(latents(), ws=torch.zeros(2, 4, 5)), "give either z or ws"),
        (lambda: tiny()(ws=torch.zeros(1, 3, 5)), r"expected ws of shape \[batch, 4, 5\], got \[1, 3, 5\]"),
        (lambda: tiny()(torch.zeros(1, 7)), r"expected z of shape \[batch, 6\], got \[1, 7\]"),
    ],
)
def test_bad_configs_and_inputs(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
