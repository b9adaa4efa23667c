"""The whole tri-plane generator: against the plain one, conditioning, truncation, its scenes, its tensors, errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from cgsgan.field_scenes import PlaneDecoder, Refiner
from cgsgan.models.mapping import MappingConfig
from cgsgan.models.presets import published_triplane_generator
from cgsgan.models.triplane.decoder import DecoderConfig
from cgsgan.models.triplane.generator import TriPlaneGenerator, TriPlaneGeneratorConfig
from cgsgan.models.triplane.superresolution import SuperResolutionConfig
from cgsgan.models.triplane.synthesis import BackboneConfig
from cgsgan.types import TriPlanes
from tests.models.triplane import plain_networks as plain

TINY = TriPlaneGeneratorConfig(
    resolution=32,
    mapping=MappingConfig(z_dim=6, w_dim=5, label_dim=25, label_scale=0.7),
    backbone=BackboneConfig(resolution=16, plane_channels=4, channels=(6, 5, 4)),
    decoder=DecoderConfig(width=7, features=5),
    superresolution=SuperResolutionConfig(input_resolution=8, channels=(6, 4)),
)
DIRECT = replace(TINY, resolution=64, superresolution=None)


def inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 6, dtype=torch.float64), torch.randn(batch, 25, dtype=torch.float64)


@pytest.mark.parametrize("batch", [1, 2])
def test_equals_the_plain_generator(batch: int) -> None:
    generator: Any = plain.fill(TriPlaneGenerator(TINY))
    z, labels = inputs(batch)
    w = plain.mapping(generator.mapping, z, labels)
    ws = (generator.mapping.w_average + 0.6 * (w - generator.mapping.w_average))[:, None].repeat(1, 6, 1)
    planes = plain.backbone(generator.backbone, ws)
    output = generator(z, camera_labels=labels, truncation_psi=0.6)
    # observed worst errors 3e-16 and 2e-15
    torch.testing.assert_close(output.ws, ws, atol=1e-12, rtol=0)
    torch.testing.assert_close(output.scenes.planes, planes, atol=1e-11, rtol=0)

    scenes = output.scenes
    features = torch.randn(batch, 9, 4, dtype=torch.float64)
    for ours, theirs in zip(scenes.decode(features), plain.decode(generator.decoder, features)):
        torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=0)
    raw, rendered = (torch.randn(batch, c, 4, 4, dtype=torch.float64) for c in (3, 5))
    refined = plain.super_resolution(generator.superresolution, raw, rendered, ws)
    torch.testing.assert_close(scenes.refine(raw, rendered, scenes.ws), refined, atol=1e-11, rtol=0)


def test_scenes_carry_the_networks() -> None:
    generator = TriPlaneGenerator(TINY)
    scenes = generator(torch.randn(2, 6), camera_labels=torch.randn(2, 25)).scenes
    assert isinstance(scenes, TriPlanes)
    assert isinstance(scenes.decode, PlaneDecoder)
    assert isinstance(scenes.refine, Refiner)
    assert scenes.decode is generator.decoder
    assert scenes.refine is generator.superresolution
    assert scenes.planes.shape == (2, 3, 4, 16, 16)
    direct = TriPlaneGenerator(DIRECT)
    assert direct(torch.randn(2, 6), camera_labels=torch.randn(2, 25)).scenes.refine is None
    assert direct.position_parameters() == []


def test_cameras_condition_the_scene() -> None:
    generator = TriPlaneGenerator(DIRECT)
    z, labels = (x.float() for x in inputs())
    one = generator(z, camera_labels=labels).scenes.planes
    other = generator(z, camera_labels=labels.flip(0)).scenes.planes
    assert (one - other).abs().max() > 1e-3
    blind = TriPlaneGenerator(replace(DIRECT, camera_conditioning=False))
    blind.load_state_dict(generator.state_dict())
    zeros = generator(z, camera_labels=torch.zeros_like(labels)).scenes.planes
    # observed worst error 0
    torch.testing.assert_close(blind(z).scenes.planes, zeros, atol=1e-5, rtol=0)
    labelless = replace(DIRECT, camera_conditioning=False, mapping=MappingConfig(z_dim=6, w_dim=5))
    assert TriPlaneGenerator(labelless).mapping.embed is None


def test_the_same_latent_gives_the_same_scene() -> None:
    generator = TriPlaneGenerator(DIRECT)
    ws = torch.randn(3, 6, 5)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
    first = generator(ws=ws).scenes.planes
    assert torch.equal(first, generator(ws=ws).scenes.planes)
    # Whatever the batch: one by one takes other kernels. Observed worst difference 2e-6.
    singly = torch.cat([generator(ws=w[None]).scenes.planes for w in ws])
    torch.testing.assert_close(singly, first, atol=2e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("batch", [1, 2])
def test_cuda_gives_what_the_cpu_gives(batch: int) -> None:
    generator = TriPlaneGenerator(TINY)
    z, labels = (x.float() for x in inputs(batch))
    raw, features = torch.rand(batch, 3, 4, 4), torch.rand(batch, 5, 4, 4)

    def draw(device: str) -> tuple[torch.Tensor, torch.Tensor]:
        scenes = generator.to(device)(z.to(device), camera_labels=labels.to(device)).scenes
        assert scenes.refine is not None
        return scenes.planes.cpu(), scenes.refine(raw.to(device), features.to(device), scenes.ws).cpu()

    exact = draw("cpu")
    with torch.backends.cudnn.flags(allow_tf32=False):
        for ours, theirs in zip(draw("cuda"), exact):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_running_mean_of_w() -> None:
    generator = TriPlaneGenerator(DIRECT)
    z, labels = (x.float() for x in inputs())
    w = generator(z, camera_labels=labels, update_w_average=True).ws[:, 0]
    torch.testing.assert_close(generator.mapping.w_average, 0.002 * w.mean(dim=0))


def test_gradients_reach_every_live_parameter() -> None:
    generator = plain.fill(TriPlaneGenerator(TINY))
    z, labels = inputs()
    scenes = generator(z, camera_labels=labels).scenes
    raw = scenes.planes.mean(dim=1)[:, :3, :8, :8]
    densities, colors = scenes.decode(scenes.planes.mean(dim=1).movedim(1, -1))
    assert scenes.refine is not None
    image = scenes.refine(raw, colors.movedim(-1, 1)[..., :8, :8], scenes.ws)
    (image.square().mean() + densities.square().mean() + colors.square().mean()).backward()
    silent = {n for n, p in generator.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent == {n for n, p in generator.named_parameters() if not p.requires_grad}
    assert silent == {f"superresolution.block{b}.conv{c}.noise_strength" for b in range(2) for c in range(2)}


def published_names(resolution: int) -> dict[str, tuple[int, ...]]:
    """The tensors of EG3D's generator with our names, from the published list of keys."""
    shapes: dict[str, tuple[int, ...]] = {"mapping.w_average": (512,), "backbone.const": (512, 4, 4)}

    def linear(name: str, out: int, in_features: int) -> None:
        shapes.update({f"{name}.weight": (out, in_features), f"{name}.bias": (out,)})

    def layer(name: str, out: int, channels: int, size: int) -> None:
        linear(f"{name}.affine", channels, 512)
        shapes[f"{name}.weight"] = (out, channels, 3, 3) if size else (out, channels, 1, 1)
        shapes[f"{name}.bias"] = (out,)
        if size:
            shapes.update({f"{name}.noise_strength": (), f"{name}.noise_const": (size, size)})

    linear("mapping.embed", 512, 25)
    linear("mapping.body.layers.0", 512, 1024)
    linear("mapping.body.layers.1", 512, 512)
    linear("decoder.hidden", 64, 32)
    linear("decoder.out", 33, 64)
    channels = (512, 512, 512, 512, 512, 256, 128)
    for i, size in enumerate((4, 8, 16, 32, 64, 128, 256)):
        if i:
            layer(f"backbone.blocks.{i}.conv0", channels[i], channels[i - 1], size)
        layer(f"backbone.blocks.{i}.conv1", channels[i], channels[i], size)
        layer(f"backbone.blocks.{i}.to_image", 96, channels[i], 0)
    widths = (32, 256, 128) if resolution == 512 else (32, 128, 64)
    for i in range(2):
        block, size = f"superresolution.block{i}", resolution // 2 * (i + 1)
        layer(f"{block}.conv0", widths[i + 1], widths[i], size)
        layer(f"{block}.conv1", widths[i + 1], widths[i + 1], size)
        layer(f"{block}.to_image", 3, widths[i + 1], 0)
    return shapes


@pytest.mark.parametrize("resolution", [128, 256, 512])
def test_tensors_are_the_published_ones(resolution: int) -> None:
    with torch.device("meta"):
        generator = TriPlaneGenerator(published_triplane_generator(resolution))
    shapes = {name: tuple(tensor.shape) for name, tensor in generator.state_dict().items()}
    assert shapes == published_names(resolution)
    # 176 published keys less the filters: 7 backbone blocks, 13 + 2 + 4 convolutions and blocks of both networks
    if resolution == 512:
        assert len(shapes) == 176 - 7 - 13 - 2 - 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either z or ws"),
        ({"z": torch.zeros(2, 6), "ws": torch.zeros(2, 6, 5)}, "either z or ws"),
        ({"z": torch.zeros(2, 6)}, "give camera_labels"),
        ({"z": torch.zeros(2, 7), "camera_labels": torch.zeros(2, 25)}, r"z of shape \[batch, 6\]"),
        ({"z": torch.zeros(2, 6), "camera_labels": torch.zeros(2, 24)}, r"camera_labels of shape \[2, 25\]"),
        ({"ws": torch.zeros(2, 6, 5), "camera_labels": torch.zeros(2, 25)}, "leave them out"),
        ({"ws": torch.zeros(2, 5, 5)}, r"ws of shape \[batch, 6, 5\], got \[2, 5, 5\]"),
    ],
)
def test_wrong_inputs(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TriPlaneGenerator(DIRECT)(**arguments)


def test_wrong_configurations() -> None:
    blind = TriPlaneGenerator(replace(DIRECT, camera_conditioning=False))
    with pytest.raises(ValueError, match="not conditioned on cameras; leave camera_labels out"):
        blind(torch.zeros(2, 6), camera_labels=torch.zeros(2, 25))
    with pytest.raises(ValueError, match=r"camera_conditioning needs mapping.label_dim 25, got 0"):
        TriPlaneGeneratorConfig(mapping=MappingConfig())
    with pytest.raises(ValueError, match=r"2 or 4 times input_resolution \(8\), got 64"):
        TriPlaneGenerator(replace(TINY, resolution=64))
