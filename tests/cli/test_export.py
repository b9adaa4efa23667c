"""``cgsgan export`` as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cgsgan import load_generator
from cgsgan.cli import main
from cgsgan.cli.export import parse_fraction
from cgsgan.export import ExportOptions, read_sh_rest, read_splat_page, read_splats, write_ply, write_splats
from cgsgan.export.formats import FORMATS
from cgsgan.gallery import latents_from_seeds
from tests.export.round_trips import random_scene, worst_errors


def fails(argv: list[str], capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1, error
    assert words in error


@pytest.mark.parametrize("suffix", list(FORMATS))
def test_a_head_in_every_format(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    generator = load_generator()
    path = tmp_path / f"head{suffix}"
    as_made = ["--psi", "0.7", "--prune", "0", "--no-fit-colors"]
    assert main(["export", "shipped", str(path), "--seed", "3", *as_made]) == 0
    told = capsys.readouterr().out
    made = generator(latents_from_seeds([3], generator.z_dim), truncation_psi=0.7).gaussians.scene(0)
    back = read_splats(path)
    assert f"wrote {made.count:,} splats to {path}" in told
    assert back.count == made.count
    # The dilation is baked in; the order of the splats is the format's own.
    dilated = torch.hypot(made.scales, torch.tensor(generator.dilation)).prod(dim=-1)
    assert back.scales.prod(dim=-1).sum().item() == pytest.approx(
        dilated.sum().item(), rel=0.03
    )  # worst observed 0.4 % (spz)
    torch.testing.assert_close(back.means.mean(dim=0), made.means.mean(dim=0), atol=1e-5, rtol=0)  # 2e-6
    assert main(["info", str(path)]) == 0
    assert FORMATS[suffix].name in capsys.readouterr().out


def test_levels_and_dilation_of_a_generator(tmp_path: Path) -> None:
    generator = load_generator()
    made = generator(latents_from_seeds([0], generator.z_dim))
    path = tmp_path / "head.ply"
    as_made = ["--no-dilation", "--prune", "0", "--no-fit-colors"]
    for levels in range(1, len(made.level_sizes) + 1):
        assert main(["export", "shipped", str(path), "--level", str(levels), *as_made]) == 0
        count = sum(made.level_sizes[:levels])
        first = made.gaussians.scene(0).map(lambda tensor, n=count: tensor[:n])
        back = read_splats(path)
        assert torch.equal(back.means, first.means)
        torch.testing.assert_close(back.scales, first.scales, atol=0, rtol=2e-6)  # 5e-7


def test_colors_above_1_are_fitted_unless_told_not_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, fitted, page = (tmp_path / name for name in ("plain.ply", "fitted.ply", "page.html"))
    assert main(["export", "shipped", str(plain), "--seed", "4", "--no-fit-colors"]) == 0
    assert main(["export", "shipped", str(page), "--seed", "4"]) == 0
    assert "dB" not in capsys.readouterr().out
    assert main(["export", "shipped", str(fitted), "--seed", "4"]) == 0
    assert "colours above 1 fitted into [0, 1]: " in capsys.readouterr().out
    bright, within = read_splats(plain).colors, read_splats(fitted).colors
    assert bright.max() > 1.2
    assert within.max() < 1 + 1e-5
    assert read_splats(page).colors.max().item() == pytest.approx(bright.max().item(), abs=1e-4)
    fails(["export", str(plain), str(fitted), "--no-fit-colors"], capsys, "--no-fit-colors: is for generators")


def test_from_file_to_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = random_scene(40)
    write_splats(tmp_path / "a.ply", scene, ExportOptions(axes="opengl"))
    assert main(["export", str(tmp_path / "a.ply"), str(tmp_path / "b.spz")]) == 0  # the .ply says which axes it has
    assert worst_errors(read_splats(tmp_path / "b.spz"), scene)["means"] < 2e-4
    assert main(["export", str(tmp_path / "b.spz"), str(tmp_path / "c.ply"), "--source-axes", "opencv"]) == 0
    turned = scene.means * torch.tensor([1.0, -1.0, -1.0])
    assert (read_splats(tmp_path / "c.ply").means - turned).abs().max() < 2e-4
    capsys.readouterr()


def test_harmonics_stay_from_ply_to_ply_and_are_told_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sh = torch.randn(10, 8, 3)
    write_ply(tmp_path / "a.ply", random_scene(10), sh_rest=sh)
    assert main(["export", str(tmp_path / "a.ply"), str(tmp_path / "b.ply"), "--axes", "opengl"]) == 0
    assert capsys.readouterr().err == ""
    kept = read_sh_rest(tmp_path / "b.ply", axes="opengl")
    assert kept is not None
    assert torch.equal(kept, sh)
    assert main(["export", str(tmp_path / "a.ply"), str(tmp_path / "b.splat")]) == 0
    assert "degree 1 to 2 are dropped" in capsys.readouterr().err


def test_render_writes_a_page_of_all_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator, path = load_generator(), tmp_path / "new" / "heads.html"
    arguments = ["render", "--seeds", "2,5", "--psi", "0.7", "--html", str(path), "--background", "black"]
    assert main(arguments) == 0
    assert f"wrote {path}: {path.stat().st_size:,} bytes" in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == [path.parent]
    assert 'value="#000000"' in path.read_text(encoding="utf-8")
    for (name, head), seed in zip(read_splat_page(path), (2, 5)):
        made = generator(latents_from_seeds([seed], generator.z_dim), truncation_psi=0.7).gaussians.scene(0)
        assert name == f"seed-000{seed}"
        kept = made.scales[made.opacities >= 1 / 255]
        dilated = torch.hypot(kept, torch.tensor(generator.dilation)).sum()
        assert head.scales.sum().item() == pytest.approx(dilated.item(), rel=1e-5)
    fails(["render", "--html", str(tmp_path / "a.htm")], capsys, "a.htm: expected a file that ends in .html")
    fails(["render", "--html", str(path), "--seeds", "0-64"], capsys, "--html: a page holds up to 64 heads, got 65")
    fails([*arguments[:-1], "transparent"], capsys, "a page has a background")


def test_mistakes_give_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.ply").write_bytes(b"no ply")
    write_splats(tmp_path / "good.ply", random_scene(3))
    broken, good, out = str(tmp_path / "broken.ply"), str(tmp_path / "good.ply"), str(tmp_path / "out.spz")
    fails(["export", broken, out], capsys, "expected a PLY file")
    fails(["export", str(tmp_path / "none.ply"), out], capsys, "none.ply")
    fails(["export", "nowhere", out], capsys, "nowhere: no such file or folder")
    fails(["export", "shipped", str(tmp_path / "out.obj")], capsys, "ends in .compressed.ply, .ply")
    fails(["export", "shipped", out, "--level", "9"], capsys, "expected 1 to 3")
    fails(["export", "shipped", out, "--seed", "-1"], capsys, "seed: expected 0 to")
    fails(["export", "shipped", out, "--psi", "nan"], capsys, "--psi")
    fails(["export", "shipped", out, "--source-axes", "opengl"], capsys, "--source-axes: is for splat files")
    fails(["export", "shipped", out, "--prune", "1/0"], capsys, "--prune: expected an opacity")
    fails(["export", good, out, "--seed", "1"], capsys, "--seed: is for generators")
    fails(["export", good, out, "--no-dilation"], capsys, "--no-dilation: is for generators")
    fails(["export", good, out, "--prune", "0.999"], capsys, "none of the 3 Gaussians")
    assert not Path(out).exists()


def test_parse_fraction() -> None:
    assert parse_fraction("1/255") == pytest.approx(1 / 255)
    assert parse_fraction("0.004") == 0.004
    for text in ("nan", "1", "-0.1", "1/0", "", "half", "1e400"):
        with pytest.raises(ValueError, match="--prune"):
            parse_fraction(text)
