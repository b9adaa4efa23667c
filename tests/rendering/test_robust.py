"""Pictures of signed-distance scenes with few samples: against the formulas, and the renderer's promises."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from cgsgan.cameras import Cameras, orbit
from cgsgan.rendering import Renderer, RobustConfig, RobustRenderer
from cgsgan.rendering.proposal import proposal_targets
from cgsgan.types import RenderOutput, SdfPlanes
from tests.rendering import plain_robust
from tests.rendering.fields import ball as fog_ball
from tests.rendering.fields import field_scenes
from tests.rendering.live_storage import LiveStorage
from tests.rendering.plain_volume import pixel_ray, uniform
from tests.rendering.sdf_scenes import ball, sdf_scenes

SIZE = 12
SMALL = RobustConfig(probe_resolution=SIZE, bins=48, samples=6, strata=4, inference_samples=5, inference_wide_samples=9)
SAMPLERS = ["robust", "stratified", "unstratified", "uniform", "importance"]


def turned(batch: int = 1, views: int = 1) -> Cameras:
    yaw = torch.linspace(-0.6, 0.6, batch * views).view(batch, views)
    return orbit(yaw, 0.3 * yaw)


def backgrounds(batch: int = 1, views: int = 1) -> torch.Tensor:
    return torch.linspace(0.1, 0.9, 3 * batch * views).view(batch, views, 3)


def seeds(batch: int, views: int) -> torch.Tensor:
    return torch.arange(batch * views).view(batch, views) + 40


def plain_pixel(pixel: int, seed: int | None, config: RobustConfig, kept: set[int] | None) -> tuple:
    """A pixel of the ball with beta 0.02 on its background; ``kept``: bins of a robust set, None: uniform samples."""
    cameras = turned()
    ray = pixel_ray(cameras.cam_to_world[0, 0], cameras.Ks_normalized[0, 0], pixel % SIZE, pixel // SIZE, SIZE)
    length = (config.far - config.near) / config.bins
    if kept is None:
        jitter = [0.5 if seed is None else uniform(seed, 0, pixel, i) for i in range(config.bins)]
        positions, cells = [i + j for i, j in enumerate(jitter)], [1.0] * config.bins
    else:
        if seed is None:
            count = config.inference_samples
            places = [(i + 0.5) / count for i in range(count)]
        else:
            each, rest = divmod(config.samples, config.strata)
            numbers = [i for i in range(config.strata) for _ in range(each)]
            drawn = [uniform(seed, 1, pixel, i) for i in range(config.strata)]
            numbers += sorted(range(config.strata), key=lambda i: drawn[i])[:rest]
            places = sorted((n + uniform(seed, 0, pixel, i)) / config.strata for i, n in enumerate(numbers))
        flat = [float(i in kept) for i in range(config.bins)]
        positions = [plain_robust.invert(flat, place) for place in places]
        cells = plain_robust.cells(kept, positions)
    samples = []
    for position, cell in zip(positions, cells):
        t = config.near + position * length
        point = [o + t * d for o, d in zip(ray[0], ray[1])]
        s = math.hypot(*point) - 0.25
        samples.append((plain_robust.laplace_density(s, 0.02), cell * length, [0.5 + v for v in point], t))
    color, alpha, distance, passed = plain_robust.composite(samples)
    on_background = [c + passed * float(b) for c, b in zip(color, backgrounds()[0, 0])]
    return on_background, alpha, distance * ray[2]


def check_pixels(
    picture: RenderOutput, seed: int | None, config: RobustConfig, kept: dict[int, set[int] | None]
) -> None:
    assert picture.depths is not None
    assert picture.betas is not None
    for pixel, bins in kept.items():
        row, column = divmod(pixel, SIZE)
        color, alpha, depth = plain_pixel(pixel, seed, config, bins)
        assert picture.images[0, 0, :, row, column].tolist() == pytest.approx(color, abs=5e-6)  # observed 2e-7
        assert float(picture.alphas[0, 0, row, column]) == pytest.approx(alpha, abs=5e-6)
        if alpha > 1e-3:
            assert float(picture.depths[0, 0, row, column]) == pytest.approx(depth, abs=2e-5)
        assert float(picture.betas[0, 0, row, column]) == pytest.approx(0.02 * alpha, abs=1e-7)


@pytest.mark.parametrize("seed", [None, 77])
def test_uniform_pictures_are_the_plain_sum(seed: int | None):
    # 24 bins: the random numbers of all of them are drawn one by one in the plain form.
    config = replace(SMALL, bins=24)
    renderer = RobustRenderer(config, SIZE)
    if seed is not None:
        renderer = renderer.for_training(torch.tensor([[seed]]))
    scenes = sdf_scenes(ball(), beta=0.02, size=SIZE)
    picture = renderer.render_uniform(scenes, turned(), size=SIZE, backgrounds=backgrounds(), depth=True)
    check_pixels(picture, seed, config, dict.fromkeys((0, 43, 66, 77)))


@pytest.mark.parametrize("seed", [None, 77])
def test_robust_pictures_are_the_plain_sum(seed: int | None):
    config = replace(SMALL, wide_share=0.0)
    renderer = RobustRenderer(config, SIZE)
    if seed is not None:
        renderer = renderer.for_training(torch.tensor([[seed]]))
    scenes = sdf_scenes(ball(), beta=0.02, size=SIZE)
    logits = renderer.propose(scenes, turned())
    picture = renderer(scenes, turned(), size=SIZE, backgrounds=backgrounds(), depth=True)
    probabilities = logits.softmax(dim=2)[0, 0].flatten(1)
    kept = {pixel: plain_robust.nucleus(probabilities[:, pixel].tolist(), config.nucleus) for pixel in (0, 43, 66, 77)}
    check_pixels(picture, seed, config, kept)


def test_the_probe_and_a_patch_are_parts_of_the_uniform_picture():
    renderer = RobustRenderer(SMALL, SIZE)
    scenes, cameras = sdf_scenes(ball(), batch=2, size=SIZE), turned(2, 3)
    picture = renderer.render_uniform(scenes, cameras, size=SIZE, backgrounds=torch.zeros(2, 3, 3))
    probe = renderer.probe(scenes, cameras)
    torch.testing.assert_close(probe.images, picture.images, rtol=0, atol=1e-6)
    torch.testing.assert_close(probe.weights.sum(dim=2), picture.alphas[..., 0], rtol=0, atol=1e-6)
    patch = renderer.weights_of_patch(scenes, cameras, size=SIZE, corner=(2, 5), patch=4)
    torch.testing.assert_close(patch, probe.weights[..., 2:6, 5:9], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="within 12"):
        renderer.weights_of_patch(scenes, cameras, size=SIZE, corner=(2, 9), patch=4)


def test_few_robust_samples_give_the_picture_of_many():
    """A ball whose surface is as thick as a bin, with the proposals of its own probe."""
    config = RobustConfig(probe_resolution=SIZE)
    scenes, cameras = sdf_scenes(ball(), size=SIZE), turned()
    renderer = RobustRenderer(config, SIZE)
    many = renderer.with_sampler("uniform", 1024)(scenes, cameras, size=SIZE, backgrounds=backgrounds())
    errors = {
        name: float(
            (r(scenes, cameras, size=SIZE, backgrounds=backgrounds()).images - many.images).square().mean().sqrt()
        )
        for name, r in [("adaptive", renderer), *((s, renderer.with_sampler(s, 16)) for s in SAMPLERS)]
    }
    assert errors["robust"] < 2e-3, errors  # observed 0.0010
    assert errors["adaptive"] <= errors["robust"] * 1.05
    assert errors["robust"] < errors["stratified"] < errors["importance"] < errors["uniform"]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("training", [False, True])
def test_pictures_do_not_depend_on_the_batch_or_the_chunks(sampler, training: bool):
    config = replace(SMALL, sampler=sampler, samples=8, inference_samples=8)
    scenes, cameras = sdf_scenes(ball(), batch=3, size=SIZE, beta=0.02), turned(3, 2)

    def render(config: RobustConfig, scenes: SdfPlanes, cameras: Cameras, chosen: slice) -> torch.Tensor:
        renderer = RobustRenderer(config, SIZE)
        if training:
            renderer = renderer.for_training(seeds(3, 2)[chosen])
        return renderer(scenes, cameras, size=SIZE, backgrounds=backgrounds(3, 2)[chosen]).images

    whole = render(config, scenes, cameras, slice(0, 3))
    in_parts = render(replace(config, points_at_once=1000), scenes, cameras, slice(0, 3))
    last = slice(2, 3)
    alone = render(config, scenes.map(lambda t: t[last]), cameras.map(lambda t: t[last]), last)
    torch.testing.assert_close(in_parts, whole, rtol=0, atol=2e-6)
    torch.testing.assert_close(alone, whole[last], rtol=0, atol=2e-6)
    assert isinstance(RobustRenderer(config, SIZE), Renderer)


def test_the_widest_tenth_gets_more_samples():
    config = replace(SMALL, wide_share=0.1)
    seen: list[int] = []
    base = sdf_scenes(ball(), size=SIZE)

    def decode(features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen.append(features.shape[:-1].numel())
        return base.decode(features)

    renderer = RobustRenderer(config, SIZE)
    scenes = replace(base, decode=decode)
    logits = renderer.propose(scenes, turned())
    seen.clear()
    renderer.render_robust(scenes, turned(), size=SIZE, backgrounds=backgrounds(), logits=logits)
    pixels = SIZE**2
    wide = round(0.1 * pixels)
    assert sum(seen) == (pixels - wide) * 5 + wide * 9
    assert RobustConfig().mean_inference_samples == pytest.approx(17.6)


def test_proposals_of_another_size_are_mixed():
    renderer = RobustRenderer(SMALL, SIZE)
    scenes = sdf_scenes(ball(), size=SIZE // 2)
    many = renderer.with_sampler("uniform", 512)(scenes, turned(), size=SIZE, backgrounds=backgrounds())
    few = renderer(scenes, turned(), size=SIZE, backgrounds=backgrounds())
    assert float((few.images - many.images).square().mean().sqrt()) < 0.03  # observed 0.0054


def leaves(scenes: SdfPlanes, beta: torch.Tensor) -> SdfPlanes:
    """The same ball with leaves for gradients: planes and beta."""
    decode = scenes.decode

    def with_beta(features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        signed, _, colors = decode(features)
        return signed, beta.expand_as(signed), colors

    return replace(scenes, planes=scenes.planes.clone().requires_grad_(), decode=with_beta)


def test_gradients_are_those_of_the_samples_at_their_places():
    """In float64, against differences of pictures whose places are held fast by given logits."""
    base = sdf_scenes(ball(), size=SIZE, beta=0.02, dtype=torch.float64)
    beta = torch.tensor(0.02, dtype=torch.float64, requires_grad=True)
    scenes = leaves(base, beta)
    cameras = turned().map(torch.Tensor.double)
    renderer = RobustRenderer(replace(SMALL, points_at_once=200), SIZE).for_training(seeds(1, 1))
    logits = renderer.propose(base, cameras)

    def loss() -> torch.Tensor:
        picture = renderer.render_robust(
            scenes, cameras, size=SIZE, backgrounds=backgrounds().double(), depth=True, logits=logits
        )
        assert picture.depths is not None
        assert picture.betas is not None
        return picture.images.square().sum() + picture.depths.sum() + 10 * picture.betas.sum()

    v_planes, v_beta = torch.autograd.grad(loss(), (scenes.planes, beta))
    direction = torch.sin(torch.arange(base.planes.numel())).view_as(v_planes).double() * 1e-2
    direction[:, :, 3] = 0  # "inside the box" is a step
    for tensor, way, slope in (
        (scenes.planes, direction, (v_planes * direction).sum()),
        (beta, torch.tensor(1e-2).double(), v_beta * 1e-2),
    ):
        step, values = 1e-4, []
        for sign in (1, -1):
            tensor.data += sign * step * way
            values.append(float(loss().detach()))
            tensor.data -= sign * step * way
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(slope), rel=1e-4)  # observed 2e-9


def test_proposing_teaches_the_network_alone():
    scale = torch.tensor(1.0, requires_grad=True)
    base = leaves(sdf_scenes(ball(), size=SIZE), torch.tensor(0.01, requires_grad=True))
    scenes = replace(base, propose=lambda images, weights: scale * weights)
    renderer = RobustRenderer(SMALL, SIZE)
    logits = renderer.propose(scenes, turned())
    (v_scale,) = torch.autograd.grad(logits.square().sum(), scale, retain_graph=True)
    assert float(v_scale) > 0
    assert torch.autograd.grad(logits.sum(), scenes.planes, allow_unused=True) == (None,)
    picture = renderer(scenes, turned(), size=SIZE, backgrounds=backgrounds())
    assert torch.autograd.grad(picture.images.sum(), scale, allow_unused=True) == (None,)


def test_memory_does_not_grow_with_the_samples():
    def peak(samples: int, points: int) -> int:
        scenes = leaves(sdf_scenes(ball(), size=8), torch.tensor(0.01, requires_grad=True))
        renderer = RobustRenderer(replace(SMALL, points_at_once=points), 8).for_training(seeds(1, 1))
        with LiveStorage() as memory:
            picture = renderer.render_uniform(scenes, turned(), size=8, backgrounds=backgrounds(), samples=samples)
            picture.images.square().mean().backward()
        return memory.peak

    few, many, unbounded = peak(32, 512), peak(256, 512), peak(256, 1 << 30)
    assert many < 1.2 * few, (few, many)  # observed 1.05
    assert unbounded > 3 * many


def test_rays_that_hit_nothing_are_looked_at_evenly():
    targets = proposal_targets(torch.zeros(1, 1, 48, 1, 1))
    torch.testing.assert_close(targets, torch.full_like(targets, 1 / 48))
    nothing = sdf_scenes(lambda p: (torch.full_like(p[..., :1], 1.0), p), size=SIZE)
    picture = RobustRenderer(SMALL, SIZE)(nothing, turned(), size=SIZE, backgrounds=backgrounds(), depth=True)
    assert picture.depths is not None
    assert not picture.alphas.any()
    assert not picture.depths.any()
    torch.testing.assert_close(picture.images, backgrounds()[..., None, None].expand(-1, -1, -1, SIZE, SIZE))


def test_what_does_not_belong_together_is_refused():
    renderer = RobustRenderer(SMALL, SIZE)
    scenes = sdf_scenes(ball(), size=SIZE)
    fog = field_scenes(fog_ball((0.0, 0.0, 0.0), 0.2))
    with pytest.raises(ValueError, match="expected scenes of tri-planes of signed distance, got TriPlanes"):
        renderer(fog, turned(), size=SIZE, backgrounds=backgrounds())
    with pytest.raises(ValueError, match="got 1 scenes but cameras for 2"):
        renderer(scenes, turned(2), size=SIZE, backgrounds=backgrounds(2))
    with pytest.raises(ValueError, match=r"expected jitter_seeds \[1, 1\], one per picture, got \[1, 3\]"):
        renderer.for_training(seeds(1, 3))(scenes, turned(), size=SIZE, backgrounds=backgrounds())
    other = replace(scenes, propose=lambda images, weights: weights[:, :40])
    with pytest.raises(ValueError, match=r"bins: the renderer cuts rays into 48; .* gives \[1, 1, 40, 12, 12\]"):
        renderer(other, turned(), size=SIZE, backgrounds=backgrounds())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 10}, "samples, strata: expected at least one sample per stratum, got 10 samples for 16 strata"),
        ({"near": 3.4}, "near, far: expected 0 <= near < far, got 3.4 and 3.3"),
        ({"box_warp": 0.0}, "box_warp: expected a length > 0"),
        ({"nucleus": 0.0}, r"nucleus: expected a probability in \(0, 1\], got 0.0"),
        ({"nucleus": 1.5}, "nucleus: expected a probability"),
        ({"wide_share": 1.1}, "wide_share: expected a share of the pixels"),
        ({"bins": 2}, "bins: expected at least 4, got 2"),
        ({"strata": 0}, "strata: expected at least 1, got 0"),
        ({"inference_samples": 1}, "inference_samples: expected at least 2, got 1"),
        ({"sampler": "importance", "inference_samples": 7}, "inference_samples: expected at least 8, got 7"),
        ({"probe_resolution": 0}, "probe_resolution: expected at least 1"),
        ({"points_at_once": 0}, "points_at_once: expected at least 1"),
    ],
)
def test_bad_settings_get_one_line(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        RobustConfig(**settings)


@pytest.mark.gpu
@pytest.mark.parametrize("training", [False, True])
def test_a_gpu_draws_the_same_picture(training: bool):
    """Places are equal but where a probability lies at the edge of the nucleus, so a few pixels may differ."""
    pictures = []
    for device in ("cpu", "cuda"):
        renderer = RobustRenderer(SMALL, SIZE)
        if training:
            renderer = renderer.for_training(seeds(2, 2))
        scenes = sdf_scenes(ball(), batch=2, size=SIZE).map(lambda t, to=device: t.to(to))
        pictures.append(renderer(scenes, turned(2, 2), size=SIZE, backgrounds=backgrounds(2, 2)).images.cpu())
    differences = (pictures[0] - pictures[1]).abs()
    assert float(differences.median()) < 1e-6
    assert float(differences.mean()) < 1e-3
