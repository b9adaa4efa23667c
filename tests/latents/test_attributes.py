"""What is read off a picture is read where it is."""

import pytest
import torch

from cgsgan.generators import load_generator
from cgsgan.latents.attributes import FIGURES, measure_heads
from cgsgan.latents.scene_source import SceneSource


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("hair-lightness", slice(2, 9), slice(8, 24)),
        ("skin-lightness", slice(13, 24), slice(10, 22)),
        ("clothes-lightness", slice(29, 32), slice(8, 24)),
    ],
)
def test_lightness_is_that_of_its_part(name: str, rows: slice, columns: slice):
    alphas = torch.ones(1, 1, 32, 32)
    dark = torch.full((1, 3, 32, 32), 0.2)
    light = dark.clone()
    light[..., rows, columns] = 0.8
    for other, figure in FIGURES.items():
        before, after = float(figure(dark, alphas)), float(figure(light, alphas))
        assert after == pytest.approx(0.8 if other == name else before, abs=0.1 if other == name else 1e-6)


def test_the_background_does_not_darken_what_it_shows_through():
    alphas = torch.full((1, 1, 32, 32), 0.5)
    assert float(FIGURES["hair-lightness"](torch.full((1, 3, 32, 32), 0.3), alphas)) == pytest.approx(0.6, abs=1e-5)


def test_long_hair_is_beside_the_neck_and_wide_hair_around_the_head():
    nothing = torch.zeros(1, 1, 32, 32)
    neck, crown = nothing.clone(), nothing.clone()
    neck[..., 20:28, 2:10] = neck[..., 20:28, 22:30] = 1
    crown[..., :17, :] = 1
    colors = torch.zeros(1, 3, 32, 32)
    length, volume = FIGURES["hair-length"], FIGURES["hair-volume"]
    assert [float(length(colors, a)) for a in (nothing, neck, crown)] == pytest.approx([0, 1, 0], abs=0.2)
    assert [float(volume(colors, a)) for a in (nothing, neck, crown)] == pytest.approx([0, 0, 1], abs=0.2)


def test_heads_are_measured_one_by_one_and_unknown_figures_refused():
    generator = load_generator()
    source = SceneSource(generator.network, generator.renderer)
    z = torch.randn(20, generator.z_dim, generator=torch.Generator().manual_seed(0))
    styles = generator.map_latents(z)[:, 0]
    found = measure_heads(source, styles, "skin-lightness")
    assert found.shape == (20,)
    torch.testing.assert_close(found[17:18], measure_heads(source, styles[17:18], "skin-lightness"))
    assert float(found.std()) > 0.05
    with pytest.raises(ValueError, match="hair-lightness"):
        measure_heads(source, styles, "smile")
