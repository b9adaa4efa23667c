"""The whole generator against the plain one, and what it promises about sizes, order, gradients and precision."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from cgsgan.models.anchors import AnchorConfig
from cgsgan.models.gaussian_generator import GaussianGenerator, GaussianGeneratorConfig
from cgsgan.models.mapping import MappingConfig
from cgsgan.models.points import PointsConfig
from cgsgan.models.presets import quickstart_generator
from cgsgan.models.transformer import TransformerConfig
from tests.models import plain_generator as plain

PUBLISHED_FORM = GaussianGeneratorConfig(
    resolution=128,
    mapping=MappingConfig(z_dim=8, w_dim=10),
    points=PointsConfig(count=9, line_cells=8),
    transformer=TransformerConfig(width=32, heads=4, first_blocks=2),
)
OFFICIAL_FORM = replace(
    PUBLISHED_FORM,
    mapping=MappingConfig(z_dim=8, w_dim=10, label_dim=25),
    points=PointsConfig(count=9, line_cells=8, line_axis="official"),
    anchors=AnchorConfig(dead_heads=True),
    xyz_group="points_and_heads",
)
SMALL_FORM = GaussianGeneratorConfig(
    resolution=64,
    mapping=MappingConfig(z_dim=8, w_dim=10),
    points=PointsConfig(count=7, start="ball", features="tokens"),
    transformer=TransformerConfig(width=24, heads=3, mlp_ratio=2, first_blocks=1, blocks_per_level=2),
    anchors=AnchorConfig(
        split_factors=(1, 3, 2),
        feature_widths=(12, 8, 6),
        first_offset=0.1,
        first_position="points",
        start_log_scale=-3.2,
        start_opacity=0.3,
        scale_bias=0.0,
        shrink=False,
    ),
)
FORMS = {"published": PUBLISHED_FORM, "official": OFFICIAL_FORM, "small": SMALL_FORM}


def randomized(config: GaussianGeneratorConfig, dtype: torch.dtype = torch.float32) -> GaussianGenerator:
    """Every parameter random: at initialisation most terms are zero and would hide mistakes."""
    torch.set_default_dtype(dtype)  # constants too must have the full precision
    try:
        generator = GaussianGenerator(config)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name != "points.xyz" and "mapping" not in name:
                parameter.normal_()
    return generator


def run_plain(generator: GaussianGenerator, ws: Tensor) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    config, points = generator.config, generator.points
    anchors, transformer = config.anchors, config.transformer
    factors = list(anchors.split_factors or [1, 4, 4, 4, 2, 2][: int(math.log2(config.resolution)) - 3])
    positions = torch.tanh(points.xyz)
    waves = torch.sin(positions @ points.frequencies.weight.T + points.frequencies.bias)
    free = points.table
    if config.points.features == "lines":
        free = plain.line_features(points.table, positions, official=config.points.line_axis == "official")
    after = [transformer.first_blocks + i * transformer.blocks_per_level for i in range(len(factors))]
    tokens = plain.run_transformer(generator.transformer, torch.cat([waves, free], dim=1), ws, after)
    cap, pixel = math.log(0.5 / math.sqrt(config.points.count)), 0.5 / config.resolution
    settings = SimpleNamespace(
        first_offset=anchors.first_offset,
        cap=cap,
        resolution=config.resolution,
        shrink=anchors.shrink,
        split=math.exp((cap - math.log(pixel)) / (len(factors) - 1)),
        start_opacity=anchors.start_opacity,
        start_log_scale=anchors.start_log_scale,
    )
    start = positions if anchors.first_position == "points" else torch.zeros_like(positions)
    return plain.run_levels(generator.decoder.levels, tokens, start, factors, settings)


@pytest.mark.parametrize("form", FORMS)
def test_equals_the_plain_generator(form: str) -> None:
    generator = randomized(FORMS[form], torch.float64)
    ws = torch.randn(3, generator.num_ws, 10, dtype=torch.float64)
    output = generator(ws=ws)
    levels, anchors = run_plain(generator, ws)
    assert len(output.anchors) == len(anchors) == len(levels) - 1
    for actual, raw in zip(output.anchors, anchors):
        for name, expected in plain.activate(raw).items():
            # observed worst error 1e-12
            torch.testing.assert_close(getattr(actual, name), expected, atol=1e-11, rtol=1e-11)
    activated = [plain.activate(raw) for raw in levels]
    assert output.level_sizes == tuple(level["means"].shape[1] for level in activated)
    for name in activated[0]:
        expected = torch.cat([level[name] for level in activated], dim=1)
        if name == "means":
            assert expected.abs().max() > 0.5, "the case must reach the clamp"
            expected = expected.clamp(-0.5, 0.5)
        # observed worst error 1e-12
        torch.testing.assert_close(getattr(output.gaussians, name), expected, atol=1e-11, rtol=1e-11)


def test_both_branches_of_the_shrink_rule_occur() -> None:
    generator = randomized(PUBLISHED_FORM, torch.float64)
    anchors = run_plain(generator, torch.randn(3, generator.num_ws, 10, dtype=torch.float64))[1]
    large = torch.cat([a["scale"].exp().amax(dim=2) > 0.5 / 128 for a in anchors], dim=1)
    assert large.any()
    assert not large.all()


@pytest.mark.parametrize("form", FORMS)
def test_gradients_equal_those_of_the_plain_generator(form: str) -> None:
    generator = randomized(FORMS[form], torch.float64)
    ws = torch.randn(2, generator.num_ws, 10, dtype=torch.float64)
    gaussians = generator(ws=ws).gaussians
    weights = {name: torch.randn_like(getattr(gaussians, name)) for name in ("means", "scales", "quats", "colors")}
    parameters = [p for p in generator.parameters() if p.requires_grad]
    loss = sum(((getattr(gaussians, name) * w).sum() for name, w in weights.items()), torch.zeros(()))
    actual = torch.autograd.grad(loss, parameters, allow_unused=True)
    activated = [plain.activate(raw) for raw in run_plain(generator, ws)[0]]
    joined = {name: torch.cat([level[name] for level in activated], dim=1) for name in weights}
    joined["means"] = joined["means"].clamp(-0.5, 0.5)
    loss = sum(((joined[name] * w).sum() for name, w in weights.items()), torch.zeros(()))
    expected = torch.autograd.grad(loss, parameters, allow_unused=True)
    for a, e in zip(actual, expected):
        assert (a is None) == (e is None)
        if a is not None and e is not None:
            # observed worst error, relative to the largest entry, 9e-13
            torch.testing.assert_close(a, e, atol=1e-9 * e.abs().max().item() + 1e-12, rtol=0)


def test_blocks_start_as_the_identity() -> None:
    generator = GaussianGenerator(PUBLISHED_FORM)
    features = generator.points()[1]
    outputs = generator.transformer(features, torch.randn(2, generator.num_ws, 10))
    assert len(outputs) == 4
    for output in outputs:
        assert torch.equal(output, features.expand(2, -1, -1))


def used_parameters(generator: GaussianGenerator) -> dict[str, bool]:
    output = generator(torch.randn(4, generator.z_dim))
    torch.stack([t.square().sum() for t in output.gaussians.tensors()]).sum().backward()
    return {name: p.grad is not None and bool(p.grad.any()) for name, p in generator.named_parameters()}


@pytest.mark.parametrize("form", ["published", "small"])
def test_gradients_reach_every_parameter(form: str) -> None:
    used = used_parameters(randomized(FORMS[form]))
    assert [name for name, alive in used.items() if not alive] == []


def test_official_form_has_exactly_the_documented_dead_parameters() -> None:
    generator = randomized(OFFICIAL_FORM)
    assert generator.mapping.embed is not None
    torch.nn.init.normal_(generator.mapping.embed.bias)
    dead = {name for name, alive in used_parameters(generator).items() if not alive}
    heads = {f"decoder.levels.3.dead_heads.{k}_{v}" for k in ("xyz", "attribute") for v in ("weight", "bias")}
    assert dead == heads | {"mapping.embed.weight"}
    assert dead == {name for name, p in generator.named_parameters() if not p.requires_grad}


def test_initial_scene_is_the_published_one() -> None:
    generator = GaussianGenerator(replace(PUBLISHED_FORM, points=PointsConfig(count=64)))
    anchors = generator(torch.randn(2, 8)).anchors[0]
    assert anchors.opacities.median().item() == pytest.approx(0.1, abs=0.05)
    # start -5 plus the scale heads' bias -1, below the cap log(0.5 / 8)
    cap = math.log(0.5 / 8)
    bent = cap - math.log1p(math.exp(cap + 6))
    assert anchors.scales.log().median().item() == pytest.approx(20 * math.tanh(bent / 20), abs=0.05)
    assert torch.nn.functional.normalize(anchors.quats, dim=-1)[..., 0].min() > 0.8


def test_smooth_bound_keeps_gradients() -> None:
    config = replace(SMALL_FORM, anchors=replace(SMALL_FORM.anchors, bound="tanh", first_offset=3.0))
    generator = randomized(config)
    means = generator(torch.randn(2, 8)).gaussians.means
    assert means.abs().max() < 0.5 + 1e-6
    assert (means.abs() > 0.49).any()
    clamped = randomized(replace(config, anchors=replace(config.anchors, bound="clamp")))
    clamped.load_state_dict(generator.state_dict())
    ws = torch.randn(2, generator.num_ws, 10)
    torch.testing.assert_close(generator(ws=ws).gaussians.scales, clamped(ws=ws).gaussians.scales)


@pytest.mark.parametrize("resolution", [32, 64, 128, 256, 512, 1024, 2048])
def test_levels_of_every_resolution(resolution: int) -> None:
    factors = AnchorConfig().resolve_split_factors(resolution)
    assert factors == (1, 4, 4, 4, 2, 2, 2, 2)[: int(math.log2(resolution)) - 3]
    widths = AnchorConfig().resolve_feature_widths(resolution, 512)
    assert widths == (512, 256, 128, 64, 32, 16, 16, 16)[: len(factors)]


def test_truncation_and_ws() -> None:
    generator = randomized(SMALL_FORM)
    z = torch.randn(2, 8)
    generator(z, update_w_average=True)
    assert generator.mapping.w_average.any()
    truncated = generator(z, truncation_psi=0.5, truncation_cutoff=2)
    ws = generator.mapping(z, truncation_psi=0.5, truncation_cutoff=2)
    torch.testing.assert_close(truncated.ws, ws)
    torch.testing.assert_close(truncated.gaussians.means, generator(ws=ws).gaussians.means)


def test_scenes_of_a_batch_are_independent() -> None:
    generator = randomized(SMALL_FORM)
    z = torch.randn(3, 8)
    together, alone = generator(z).gaussians, generator(z[1:2]).gaussians
    for a, b in zip(together.tensors(), alone.tensors()):
        # observed worst error 2e-5
        torch.testing.assert_close(a[1:2], b, atol=1e-4, rtol=1e-4)


def test_position_parameters() -> None:
    generator = GaussianGenerator(OFFICIAL_FORM)
    names = {id(p): name for name, p in generator.named_parameters()}
    group = [names[id(p)] for p in generator.position_parameters()]
    assert group[0] == "points.xyz"
    assert set(group) == {n for n, p in generator.named_parameters() if "xyz" in n and p.requires_grad}
    assert len(group) == 1 + 2 * 4
    assert len(GaussianGenerator(PUBLISHED_FORM).position_parameters()) == 1


def test_runs_under_autocast() -> None:
    generator = GaussianGenerator(quickstart_generator())
    torch.nn.init.normal_(generator.transformer.styles.weight, std=0.3)
    z = torch.randn(2, 64)
    exact = generator(z).gaussians
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = generator(z).gaussians
        half.means.sum().backward()
    assert all(t.dtype == torch.float32 for t in half.tensors())
    assert not torch.equal(half.means, exact.means)
    # observed root mean square difference 0.0012
    assert (half.means - exact.means).square().mean().sqrt() < 0.01
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in generator.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g(), "either z or ws"),
        (lambda g: g(torch.randn(1, 8), ws=torch.randn(1, 5, 10)), "either z or ws"),
        (lambda g: g(ws=torch.randn(1, 4, 10)), r"expected ws of shape \[batch, 5, 10\], got \[1, 4, 10\]"),
        (lambda g: g(torch.randn(1, 9)), r"expected z of shape \[batch, 8\]"),
    ],
)
def test_wrong_inputs(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(GaussianGenerator(SMALL_FORM))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianGeneratorConfig(resolution=100), "power of two from 32 to 2048, got 100"),
        (lambda: TransformerConfig(width=10, heads=3), r"heads \(3\) must divide width \(10\)"),
        (lambda: TransformerConfig(first_blocks=0), "must be >= 1"),
        (lambda: AnchorConfig(split_factors=(2, 4)), "the first of them 1"),
        (lambda: AnchorConfig(start_opacity=1.0), "start_opacity"),
        (lambda: AnchorConfig(feature_widths=(0, 1)), "feature_widths must be >= 1"),
        (lambda: AnchorConfig(feature_widths=(8, 8)).resolve_feature_widths(64, 32), "expected 3 feature_widths"),
    ],
)
def test_wrong_configurations(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
