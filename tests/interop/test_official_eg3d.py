"""EG3D's networks in official form: keys, sizes, and their pictures, against formulas on the published keys."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cgsgan.cameras import orbit
from cgsgan.interop import discriminator_keys, eg3d_keys
from cgsgan.interop.errors import WeightsError
from cgsgan.interop.official import load_cgsgan_generator, load_eg3d_discriminator, load_eg3d_generator
from cgsgan.models.discriminator import Discriminator, DiscriminatorConfig
from cgsgan.models.triplane.generator import TriPlaneGenerator, TriPlaneGeneratorConfig
from cgsgan.rendering.volume import VolumeConfig
from tests.interop import official_keys, plain_cgsgan, plain_eg3d

SMALL = {"planes": 16, "width": 16, "divide": 32, "refiner": (8, 4)}


def small_state(resolution: int = 128) -> dict[str, Tensor]:
    state = official_keys.fill(official_keys.eg3d_generator(resolution, **SMALL))
    state["decoder.net.2.bias"][0] += 2  # dense enough to hide what is behind
    return state


def make_labels(count: int) -> Tensor:
    """Cameras around the head, their intrinsics a little apart and skewed."""
    labels = orbit(torch.linspace(-0.5, 0.7, count), torch.linspace(0.2, -0.3, count)).to_labels()
    labels[:, 16:] += torch.tensor([0.1, 0.05, 0.02, 0, -0.2, -0.03, 0, 0, 0]) * torch.rand(count, 1)
    return labels


def compare(state: dict[str, Tensor], *, size: int, batch: int, **options: Any) -> None:
    """Our pictures in float32 against plain ones in float64, in the published convention."""
    z, labels = torch.randn(batch, state["backbone.mapping.embed.weight"].shape[0]), make_labels(batch)
    axes, rendering = options.pop("axes", "official"), None
    if options:
        names = {"box": "box_warp", "white": "white_back"}
        rendering = VolumeConfig(**{names.get(name, name): value for name, value in options.items()})
    generator = load_eg3d_generator(state, plane_axes=axes, rendering=rendering)
    output = generator(z, labels, neural_resolution=size, deterministic=True)
    exact = {key: value.double() for key, value in state.items()}
    expected = plain_eg3d.plain_pictures(exact, z.double(), labels.double(), resolution=size, axes=axes, **options)
    assert expected["images"].std() > 0.1
    assert expected["depths"].std() > 1e-3
    for name, value in expected.items():
        found = getattr(output, name).double()
        found = found if name == "depths" else 2 * found - 1
        # observed worst error 2.4e-6; of the published size 5.9e-6, where plain formulas in float32 are 4.8e-6 off
        torch.testing.assert_close(found, value, atol=5e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("resolution", "size"), [(128, 16), (256, 12), (512, 8)])
def test_pictures_against_the_formulas(resolution: int, size: int) -> None:
    compare(small_state(resolution), size=size, batch=2)


def test_other_ranges_and_axes() -> None:
    compare(small_state(), size=8, batch=1, axes="corrected")
    compare(small_state(), size=8, batch=2, near=0.1, far=2.6, box=1.6, white=True)


def test_axes_matter() -> None:
    z, labels = torch.randn(1, 16), make_labels(1)
    first, second = (load_eg3d_generator(small_state(), plane_axes=a)(z, labels, 8) for a in ("official", "corrected"))
    assert (first.raw_images - second.raw_images).abs().max() > 0.01


def test_random_places_are_near_the_regular_ones() -> None:
    generator, z, labels = load_eg3d_generator(small_state()), torch.randn(2, 16), make_labels(2)
    regular = generator(z, labels, 8)
    assert torch.equal(generator(z, labels, 8).images, regular.images)
    random = [generator(z, labels, 8, deterministic=False).raw_images for _ in range(2)]
    assert not torch.equal(*random)
    assert (random[0] - regular.raw_images).abs().mean() < 0.1


def test_without_camera_conditioning() -> None:
    state, z, labels = small_state(), torch.randn(2, 16), make_labels(2)
    generator = load_eg3d_generator(state, camera_conditioning=False)
    exact = {key: value.double() for key, value in state.items()}
    w = plain_cgsgan.map_latents(exact, z.double(), key="backbone.mapping")
    torch.testing.assert_close(generator.network(z).ws[:, 0].double(), w, atol=5e-5, rtol=0)
    assert generator(z, labels, 8).images.shape == (2, 3, 128, 128)


def test_generator_keys() -> None:
    expected = official_keys.eg3d_generator()
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in expected.items()}
        network = TriPlaneGenerator(eg3d_keys.infer_config(state))
        form = eg3d_keys.official_form(network)
    assert network.config == TriPlaneGeneratorConfig()
    assert len(expected) == 176
    assert form.shapes() == expected
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == 30.66


def test_discriminator_keys() -> None:
    expected = official_keys.discriminator(512, dual=True)
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in expected.items()}
        config = discriminator_keys.infer_config(state, dual=True)
        network = Discriminator(config)
        form = discriminator_keys.official_form(network)
    assert config == DiscriminatorConfig(dual=True)
    assert len(expected) == 92
    assert form.shapes() == expected
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == 31.36


@pytest.mark.parametrize(("resolution", "raw", "batch"), [(128, 32, 8), (128, 128, 2), (64, 12, 3)])
def test_dual_discriminator_against_the_formulas(resolution: int, raw: int, batch: int) -> None:
    state = official_keys.fill(official_keys.discriminator(resolution, dual=True, divide=16))
    images, raw_images = torch.rand(batch, 3, resolution, resolution), torch.rand(batch, 3, raw, raw)
    labels = torch.randn(batch, 25)
    logits = load_eg3d_discriminator(state)(images, raw_images, labels)
    exact = {key: value.double() for key, value in state.items()}
    both = torch.cat([images.double(), plain_eg3d.resize(raw_images.double(), resolution)], dim=1) * 2 - 1
    expected = plain_cgsgan.plain_discriminator(exact, both, labels.double())
    assert expected.std() > 0.05
    # observed worst 4e-7
    torch.testing.assert_close(logits.double(), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("decoder.net.2.bias", None, r"missing: decoder\.net\.2\.bias$"),
        ("backbone.synthesis.b8.conv1.weight", None, r"expected backbone\.synthesis\.b4, \.b8"),
        ("superresolution.block1.conv1.noise_const", torch.zeros(64, 64), "known for .* px, found 64"),
        ("renderer.x", torch.zeros(1), r"unknown: renderer\.x$"),
        ("decoder.net.0.weight", torch.zeros(64, 16), r"decoder\.net\.0\.weight \[64, 16\] instead of \[64, 32\]"),
        ("backbone.synthesis.b16.resample_filter", torch.zeros(4, 4), "of an unknown value: backbone"),
    ],
)
def test_other_networks_are_refused(key: str, value: Tensor | None, words: str) -> None:
    state = small_state()
    state.pop(key, None)
    with pytest.raises(WeightsError, match=words):
        load_eg3d_generator(state if value is None else state | {key: value})


def test_networks_are_not_taken_for_each_other() -> None:
    with pytest.raises(WeightsError, match="not the weights of a CGS-GAN generator"):
        load_cgsgan_generator(small_state())
    state = official_keys.fill(official_keys.discriminator(64, dual=False, divide=32))
    with pytest.raises(WeightsError, match="not the weights of an EG3D generator"):
        load_eg3d_generator(state)
    with pytest.raises(WeightsError, match=r"unknown: b8_pose.*\[16, 3, 1, 1\] instead of \[16, 6, 1, 1\]"):
        load_eg3d_discriminator(state)


def test_optional_keys() -> None:
    state = small_state()
    low_pass = state["backbone.synthesis.b4.resample_filter"]
    load_eg3d_generator(state | {"superresolution.resample_filter": low_pass, "dataset_label_std": torch.ones(25)})
