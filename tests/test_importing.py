"""``cgsgan import`` as a user runs it: what it writes, and one line for what it refuses."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cgsgan import load_generator
from cgsgan.cli import main
from cgsgan.config import load_config
from cgsgan.growing import read_origin, start_from
from cgsgan.importing import PUBLISHED_SPLATTING
from cgsgan.interop.official import load_cgsgan_discriminator, load_cgsgan_generator, load_eg3d_generator
from cgsgan.models.discriminator import Discriminator
from cgsgan.models.gaussian_generator import GaussianGenerator
from cgsgan.models.presets import published_discriminator, published_generator
from cgsgan.rendering.volume import VolumeConfig
from tests.interop import official_keys
from tests.interop.published_files import write_pickle

ROOT = Path(__file__).parents[1]


def cgsgan_state() -> dict[str, Tensor]:
    shapes = official_keys.cgsgan_generator(5, (64, 32, 16, 16, 16), width=64, points=32, cells=8)
    return official_keys.fill(shapes) | {"dataset_label_std": torch.ones(25)}


def eg3d_state() -> dict[str, Tensor]:
    shapes = official_keys.eg3d_generator(128, planes=16, width=16, divide=32, refiner=(8, 4))
    return official_keys.fill(shapes)


def fails(argv: list[str], capsys: pytest.CaptureFixture[str], *words: str) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1, error
    for word in words:
        assert word in error


def test_a_snapshot_becomes_a_generator_to_render(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, marker = cgsgan_state(), tmp_path / "marker"
    other = state | {"_xyz": state["_xyz"] + 1}
    snapshot = write_pickle(tmp_path / "snapshot.pkl", {"G": other, "G_ema": state}, marker)
    assert main(["import", str(snapshot), str(tmp_path / "run")]) == 0
    assert "nothing in" in capsys.readouterr().out
    assert not marker.exists()
    generator = load_generator(tmp_path / "run")
    assert generator.config.rendering == PUBLISHED_SPLATTING
    assert generator.config.discriminator == published_discriminator(256, official=True)
    z = torch.randn(2, 64)
    expected = load_cgsgan_generator(state)(z).gaussians
    assert all(torch.equal(a, b) for a, b in zip(generator(z).scenes.tensors(), expected.tensors()))
    assert main(["import", str(snapshot), str(tmp_path / "g.safetensors"), "--network", "G"]) == 0
    second = load_generator(tmp_path / "g.safetensors")(z).scenes.tensors()[0]
    assert torch.equal(second, load_cgsgan_generator(other)(z).gaussians.means)
    capsys.readouterr()
    assert main(["info", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "256 px" in out
    assert "imported from      snapshot.pkl" in out
    assert "synthetic" not in out
    options = ["--seeds", "0", "--size", "32", "--ply", "--grid", "--out", str(tmp_path / "out")]
    assert main(["render", str(tmp_path / "run"), *options]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"grid.png", "seed-0000.ply"}


def test_a_snapshot_with_its_discriminator_is_somewhere_to_start_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    critic = official_keys.fill(official_keys.discriminator(256, dual=False, divide=32))
    snapshot = write_pickle(tmp_path / "a.pkl", {"D": critic, "G_ema": cgsgan_state()}, tmp_path / "marker")
    assert main(["import", str(snapshot), str(tmp_path / "run")]) == 0
    origin = read_origin(str(tmp_path / "run"))
    images, labels = torch.rand(2, 3, 256, 256), torch.randn(2, 25)
    discriminator, generator = Discriminator(origin.config.discriminator), GaussianGenerator(origin.config.generator)
    start_from(origin, origin.config, generator, discriminator)
    expected = load_cgsgan_discriminator(critic)(images, labels)
    torch.testing.assert_close(discriminator(images * 2 - 1, labels), expected)
    assert torch.equal(generator.points.xyz, cgsgan_state()["_xyz"])
    fails(["import", str(snapshot), str(tmp_path / "run")], capsys, "is there already")
    write_pickle(snapshot, {"D": {"x": torch.ones(1)}, "G_ema": cgsgan_state()}, tmp_path / "marker")
    fails(
        ["import", str(snapshot), str(tmp_path / "new")], capsys, "its D is not the weights of a CGS-GAN discriminator"
    )
    assert not (tmp_path / "new").exists()
    assert main(["import", str(snapshot), str(tmp_path / "new.safetensors")]) == 0
    write_pickle(snapshot, {"D": critic}, tmp_path / "marker")
    fails(["import", str(snapshot), str(tmp_path / "new")], capsys, "holds no G_ema, only D")


def test_the_config_that_goes_on_has_the_published_form() -> None:
    config = load_config(ROOT / "configs" / "ffhq512_published.yaml")
    assert config.generator == published_generator(512, official=True)
    assert config.discriminator == published_discriminator(512, official=True)


def test_tri_planes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(eg3d_state(), tmp_path / "eg3d.safetensors")
    target = tmp_path / "generator.safetensors"
    cars = ["--near", "0.1", "--far", "2.6", "--box-warp", "1.6", "--white-back", "--no-camera-conditioning"]
    assert main(["import", str(tmp_path / "eg3d.safetensors"), str(target), *cars]) == 0
    cars_rendering = VolumeConfig(near=0.1, far=2.6, box_warp=1.6, white_back=True, plane_axes="official")
    assert load_generator(target).config.rendering == cars_rendering
    assert main(["import", str(tmp_path / "eg3d.safetensors"), str(target)]) == 0
    generator, z = load_generator(target), torch.randn(1, 16)
    label = torch.randn(1, 25)
    expected = load_eg3d_generator(eg3d_state()).network(z, camera_labels=label).scenes.planes
    assert torch.equal(generator(z, camera_labels=label).scenes.tensors()[0], expected)
    assert main(["info", str(target)]) == 0
    assert "EG3D" in capsys.readouterr().out
    assert main(["render", str(target), "--seeds", "0", "--size", "16", "--grid", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "grid.png").is_file()


class Run:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marker, file, out = tmp_path / "marker", tmp_path / "x.pkl", tmp_path / "out.safetensors"
    write_pickle(file, {"G_ema": cgsgan_state()}, marker)
    whole = file.read_bytes()
    torch.save({"unet.weight": torch.ones(1), "unet.bias": torch.ones(1)}, tmp_path / "other.pt")
    short = cgsgan_state()
    del short["mapping_network.fc1.bias"]
    cases = {
        "code": (pickle.dumps({"G_ema": Run(marker)}), ["system", "nothing was run"]),
        "truncated": (whole[: len(whole) // 2], ["truncated"]),
        "unknown class": (pickle.dumps({"G_ema": Path("x")}), ["refers to pathlib."]),
        "another network": ((tmp_path / "other.pt").read_bytes(), ["neither a CGS-GAN nor an EG3D", "unet.weight"]),
        "no average": (write_pickle(file, {"G": short}, marker).read_bytes(), ["holds the networks G; expected G_ema"]),
        "a key less": (
            write_pickle(file, {"G_ema": short}, marker).read_bytes(),
            ["missing: mapping_network.fc1.bias"],
        ),
        "text": (b"hello", ["neither a pickle"]),
    }
    for name, (data, words) in cases.items():
        file.write_bytes(data)
        fails(["import", str(file), str(out)], capsys, str(file), *words)
        assert not marker.exists(), name
        assert not out.exists(), name
    fails(["import", str(tmp_path / "no.pkl"), str(out)], capsys, "no.pkl", "No such file")
    fails(["import", str(tmp_path / "no.safetensors"), str(out)], capsys, "no.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.pt", "x.pkl"]


def test_what_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(cgsgan_state(), tmp_path / "weights.safetensors")
    (tmp_path / "file").write_text("x")
    fails(["import", str(tmp_path / "weights.safetensors"), str(tmp_path / "file")], capsys, "could not be written")
    assert (tmp_path / "file").read_text() == "x"


def test_the_command_says_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"G_ema": Run(tmp_path / "marker")}))
    command = [sys.executable, "-m", "cgsgan", "import", str(tmp_path / "x.pkl"), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
