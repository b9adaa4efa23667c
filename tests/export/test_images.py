from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cgsgan.export import make_grid, save_grid, save_image, to_uint8


def test_every_8_bit_level_survives() -> None:
    levels = torch.arange(256, dtype=torch.float32).view(1, 16, 16).expand(3, 16, 16)
    assert np.array_equal(to_uint8(levels / 255)[..., 1], np.arange(256).reshape(16, 16))


def test_rounds_half_up_and_clamps() -> None:
    values = torch.tensor([-1.0, 0.5 / 255 - 1e-6, 0.5 / 255, 254.5 / 255 + 1e-6, 2.0, float("inf")])
    got = to_uint8(values.view(1, 1, 6).expand(3, 1, 6))
    assert got.shape == (1, 6, 3)
    assert got[0, :, 0].tolist() == [0, 0, 1, 255, 255, 255]


def test_batch_axes_are_kept_and_channels_move_last() -> None:
    images = torch.rand(2, 3, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    got = to_uint8(images)
    assert got.shape == (2, 3, 4, 5, 3)
    assert got[1, 2, 3, 4, 0] == int(images[1, 2, 0, 3, 4] * 255 + 0.5)


def test_nan_has_no_color() -> None:
    image = torch.zeros(3, 2, 2)
    image[1, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="1 of 12 values are NaN"):
        to_uint8(image)


@pytest.mark.parametrize(("suffix", "channels"), [(".png", 3), (".png", 4), (".webp", 3), (".webp", 4)])
def test_lossless_files_hold_the_pixels(tmp_path: Path, suffix: str, channels: int) -> None:
    image = torch.rand(channels, 7, 5, generator=torch.Generator().manual_seed(1))
    image[3:] = 0.25 + image[3:] / 2  # fully transparent pixels may lose their colour in WebP
    save_image(tmp_path / "new" / f"a{suffix}", image)
    with Image.open(tmp_path / "new" / f"a{suffix}") as picture:
        assert np.array_equal(np.asarray(picture), to_uint8(image))
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_jpeg_is_close_and_refuses_transparency(tmp_path: Path) -> None:
    image = torch.linspace(0, 1, 32).view(1, 1, 32).expand(3, 16, 32)
    save_image(tmp_path / "a.jpg", image)
    with Image.open(tmp_path / "a.jpg") as picture:
        error = np.abs(np.asarray(picture).astype(int) - to_uint8(image)).max()
    assert error <= 2  # worst observed 0
    with pytest.raises(ValueError, match="JPEG cannot hold transparency"):
        save_image(tmp_path / "b.jpg", image[:1].expand(4, 16, 32))


def test_refuses_unknown_suffix_and_channels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"suffix '\.bmp'"):
        save_image(tmp_path / "a.bmp", torch.zeros(3, 2, 2))
    with pytest.raises(ValueError, match="got 2"):
        save_image(tmp_path / "a.png", torch.zeros(2, 2, 2))
    assert list(tmp_path.iterdir()) == []


def test_grid_places_pictures_row_by_row() -> None:
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 4, 6) / 10
    grid = make_grid(images, columns=3, padding=1, background=0.9)
    assert grid.shape == (3, 2 * 5 + 1, 3 * 7 + 1)
    for index in range(5):
        top, left = 1 + index // 3 * 5, 1 + index % 3 * 7
        assert torch.equal(grid[:, top : top + 4, left : left + 6], images[index])
    assert bool((grid[:, 6:, 15:] == 0.9).all())  # the cell that is left over
    covered = 5 * 3 * 4 * 6
    assert int((grid == 0.9).sum()) == grid.numel() - covered


def test_grid_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="0 pictures"):
        make_grid(torch.zeros(0, 3, 2, 2), columns=1)
    with pytest.raises(ValueError, match="columns 0"):
        make_grid(torch.zeros(1, 3, 2, 2), columns=0)


def test_saved_grid_with_labels_has_a_strip_of_text(tmp_path: Path) -> None:
    images = torch.zeros(4, 3, 20, 30)
    save_grid(tmp_path / "plain.png", images, columns=2)
    save_grid(tmp_path / "named.png", images, columns=2, labels=["real", "fake"])
    plain = np.asarray(Image.open(tmp_path / "plain.png"))
    named = np.asarray(Image.open(tmp_path / "named.png"))
    strip = named.shape[0] - plain.shape[0]
    assert np.array_equal(named[strip:], plain)
    for left in (2, 34):
        assert named[:strip, left : left + 30].min() < 100  # ink over each column
    with pytest.raises(ValueError, match="one label per column"):
        save_grid(tmp_path / "x.png", images, columns=2, labels=["one"])
