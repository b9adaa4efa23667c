"""`cgsgan invert`: from a photo to files that everything else takes."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from cgsgan.cameras import Cameras, orbit, yaw_pitch
from cgsgan.cli import main
from cgsgan.cli.invert import read_cameras
from cgsgan.export.images import save_image
from cgsgan.gallery import choose_heads, generate_scenes, latents_from_seeds, render_views
from cgsgan.generators import load_generator

QUICK = ["--steps", "0.05"]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head of the shipped generator from 20 degrees to its left."""
    generator = load_generator()
    scenes = generate_scenes(generator, latents_from_seeds([77], generator.z_dim))
    camera = orbit(torch.tensor([math.radians(20)]), torch.tensor([0.0]))
    image = render_views(generator.renderer, scenes, camera, size=64)[0, 0]
    path = tmp_path_factory.mktemp("photo") / "head.png"
    save_image(path, image.clamp(0, 1))
    return path


def test_a_photo_becomes_a_folder_that_render_and_export_take(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found"
    assert main(["invert", str(photo), "--camera", "20,0", "--out", str(out), "--film", *QUICK]) == 0
    said = capsys.readouterr().out
    assert "yaw +20.0 pitch +0.0 degrees, PSNR" in said
    with Image.open(out / "comparison.png") as picture:
        assert picture.width == pytest.approx(6 * picture.height, rel=0.05)
    with Image.open(out / "progress.webp") as film:
        assert film.n_frames > 10  # type: ignore[attr-defined]
    found = load_generator(out)
    assert found.found is not None
    names, latents = choose_heads(found, None, otherwise=[0])
    assert names == ["found-0"]
    camera = orbit(torch.tensor([math.radians(20)]), torch.tensor([0.0]))
    again = render_views(found.renderer, generate_scenes(found, latents), camera, size=64)[0, 0].clamp(0, 1)
    with Image.open(out / "comparison.png") as picture:
        shown = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
        shown = shown.view(picture.height, picture.width, 3)
    # The second picture of the sheet is what the file makes: compare their means, whatever the sheet's margins are.
    sixth = picture.width // 6
    torch.testing.assert_close(
        shown[8:-8, sixth + 8 : 2 * sixth - 8].float().mean(dim=(0, 1)) / 255,
        again[:, 2:-2, 2:-2].mean(dim=(1, 2)),
        atol=0.02,
        rtol=0,
    )
    assert main(["render", str(out), "--ply", "--grid"]) == 0
    assert (out / "renders" / "found-0.ply").is_file()
    assert main(["export", str(out), str(tmp_path / "head.splat")]) == 0
    assert main(["render", str(out), "--seeds", "3", "--grid", "--out", str(tmp_path / "other")]) == 0


def test_what_cannot_be_done_is_one_clear_line(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    labels = tmp_path / "dataset.json"
    labels.write_text('{"labels": [["other.png", [0]]]}')
    for arguments, message in (
        ([str(tmp_path / "none.png")], "no such file; expected a picture"),
        ([str(photo), "--camera", "20"], "yaw,pitch in degrees"),
        ([str(photo), "--camera", "0,0", "1,1"], "each of the 1 views"),
        ([str(photo), "--camera", "0,90"], "yaw,pitch in degrees"),
        ([str(photo), "--camera", str(labels)], "no label of 25 numbers for head.png"),
        ([str(photo), "--camera", str(tmp_path / "none.json")], "not a dataset.json"),
        ([str(photo), "--steps", "0"], "--steps"),
        ([str(photo), "--weights", str(labels)], "--look"),
        ([str(photo), "--device", "cuda"], "--device cuda"),
        ([str(photo), "--out", str(photo)], "is a file"),
        ([str(photo), "--background", "pink"], "#rrggbb"),
        ([str(photo), str(tmp_path / "nothing")], "no such file or folder"),
    ):
        assert main(["invert", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (Path("inverted") / "head").exists()


def test_cameras_come_from_angles_or_labels(tmp_path: Path) -> None:
    photos = [tmp_path / "a.png", tmp_path / "b.png"]
    given = read_cameras(("10,-5", "-30,0"), photos)
    assert given is not None
    yaw, pitch = yaw_pitch(given)
    assert yaw[0].rad2deg().tolist() == pytest.approx([10, -30], abs=1e-3)
    assert pitch[0].rad2deg().tolist() == pytest.approx([-5, 0], abs=1e-3)
    labels = given.to_labels()[0]
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": [["x/b.png", labels[1].tolist()], ["x/a.png", labels[0].tolist()]]}))
    read = read_cameras((str(path),), photos)
    assert read is not None
    assert isinstance(read, Cameras)
    torch.testing.assert_close(read.viewmats, given.viewmats, atol=1e-6, rtol=0)
    assert read_cameras((), photos) is None
