"""Photographs: masks, transparency, plain backgrounds, and what cannot be used."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cgsgan.latents.targets import PhotoError, parse_color, read_target


def save(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def disc(size: int, color: tuple[int, ...], behind: tuple[int, ...]) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    inside = (rows**2 + columns**2 < (size / 4) ** 2)[..., None]
    return np.where(inside, color, behind)


def test_transparency_is_the_mask(tmp_path: Path):
    photo = save(tmp_path / "a.png", disc(64, (200, 100, 50, 255), (9, 250, 9, 0)))
    target = read_target([photo], size=16)
    assert target.alphas is not None
    assert target.size == 16
    assert target.views == 1
    centre, corner = target.colors[0, :, 8, 8], target.colors[0, :, 0, 0]
    torch.testing.assert_close(centre, torch.tensor([200.0, 100, 50]) / 255)
    assert corner.tolist() == [0, 0, 0]  # hidden green does not get in
    # Nor does it bleed into half covered pixels of the outline.
    half = (target.alphas[0, 0] > 0.2) & (target.alphas[0, 0] < 0.9)
    assert bool(half.any())
    straight = target.colors[0][:, half] / target.alphas[0][:, half]
    torch.testing.assert_close(straight, centre[:, None].expand_as(straight), atol=0.01, rtol=0)
    on_blue = target.on(torch.tensor([[0.0, 0.0, 1.0]]))
    torch.testing.assert_close(on_blue[0, :, 0, 0], torch.tensor([0.0, 0.0, 1.0]))


def test_a_mask_file_counts_as_transparency(tmp_path: Path):
    photo = save(tmp_path / "a.png", disc(32, (200, 100, 50), (9, 250, 9)))
    mask = save(tmp_path / "m.png", disc(32, (255,), (0,))[..., 0])
    target = read_target([photo], size=32, masks=[mask])
    assert target.alphas is not None
    assert float(target.alphas.mean()) == pytest.approx(np.pi / 16, rel=0.05)
    assert float(target.colors[0, 1, 0, 0]) == 0


def test_a_plain_background_is_found(tmp_path: Path):
    values = disc(64, (200, 100, 50), (30, 60, 90))
    values = values + np.random.default_rng(0).integers(-4, 5, values.shape)
    values[48:, 20:44] = (10, 10, 10)  # shoulders
    target = read_target([save(tmp_path / "a.png", values)], size=64)
    assert target.alphas is None
    assert target.background == pytest.approx((30 / 255, 60 / 255, 90 / 255), abs=0.01)
    stream = torch.Generator().manual_seed(0)
    torch.testing.assert_close(target.draw_backgrounds(stream), torch.tensor([target.background]))
    noisy = save(tmp_path / "b.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3)))
    with pytest.raises(PhotoError, match=r"^[^\n]*not plain[^\n]*--mask[^\n]*$"):
        read_target([noisy], size=64)
    assert read_target([tmp_path / "b.png"], size=64, background="#ff8000").background == pytest.approx(
        (1, 128 / 255, 0)
    )


def test_what_cannot_be_used_is_one_clear_line(tmp_path: Path):
    wide = save(tmp_path / "wide.png", np.zeros((32, 64, 3)))
    small = save(tmp_path / "small.png", np.zeros((16, 16, 3)))
    clear = save(tmp_path / "clear.png", np.zeros((32, 32, 4)))
    grey = save(tmp_path / "grey.png", np.full((32, 32, 3), 128))
    (tmp_path / "text.png").write_text("no picture")
    for photos, masks, message in (
        ([wide], None, "expected a square picture"),
        ([small], None, "at least 32 x 32"),
        ([tmp_path / "text.png"], None, "not a readable picture"),
        ([tmp_path / "none.png"], None, "no such file"),
        ([clear], None, "no head in it"),
        ([grey], [save(tmp_path / "black.png", np.zeros((32, 32)))], "no head in it"),
        ([small, small], [small], "one for each of the 2 photos"),
    ):
        with pytest.raises(PhotoError, match=message) as caught:
            read_target(photos, size=32, masks=masks)
        assert "\n" not in str(caught.value)
    for text in ("grey", "#12345", "#gggggg", ""):
        with pytest.raises(PhotoError, match="#rrggbb"):
            parse_color(text)
