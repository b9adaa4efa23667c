"""`cgsgan edit`: a head towards another, mixed with another, along a direction; the result is a head like any other."""

import copy
import json
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from cgsgan.cli import main
from cgsgan.cli.edit import parse_rows
from cgsgan.config import config_to_dict
from cgsgan.editing import Edit, direction_of, head_of, other_head, picture_head
from cgsgan.gallery import latents_from_seeds
from cgsgan.generators import TrainedGenerator, load_generator
from cgsgan.latents.attributes import measure_heads
from cgsgan.latents.scene_source import SceneSource
from cgsgan.latents.style_space import StyleSpace
from cgsgan.training.checkpoint import SHIPPED_FILE
from cgsgan.training.generator_file import GeneratorFile, write_generator


@cache
def shipped() -> TrainedGenerator:
    return load_generator()


def write_found(folder: Path, seed: int, *, mapping: float = 0.0) -> Path:
    """What invert writes for a head of a seed: a generator of slightly other weights, and the head's styles."""
    generator = shipped()
    network = copy.deepcopy(generator.network)
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            size = mapping if name.startswith("mapping.") else 0.02
            weight.add_(size * weight.std().nan_to_num() * torch.randn(weight.shape, generator=stream))
    file = GeneratorFile(
        config=config_to_dict(generator.config),
        images_seen=generator.images_seen,
        weights=network.state_dict(),
        heads={"ws": head_of(generator, seed).ws},
    )
    folder.mkdir()
    write_generator(folder / "generator.safetensors", file)
    return folder


def front(generator: TrainedGenerator) -> Tensor:
    return picture_head(generator, head_of(generator), size=32, views=((0.0, 0.0),))


def test_on_the_way_to_another_head_styles_and_weights_change_together(tmp_path: Path) -> None:
    first, second = write_found(tmp_path / "a", 1), write_found(tmp_path / "b", 2)
    a, b = load_generator(first), load_generator(second)
    edit = Edit(head_of(a), other=other_head(a, str(second)))
    for amount, expected in ((0.0, front(a)), (1.0, front(b))):
        found = picture_head(a, edit.at(amount), size=32, views=((0.0, 0.0),))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)  # observed 0
    half = edit.at(0.5)
    weights = [dict(network.named_parameters()) for network in (a.network, half.network, b.network)]
    torch.testing.assert_close(half.ws, (head_of(a).ws + head_of(b).ws) / 2)
    for name in ("points.xyz", "decoder.levels.2.heads.attribute_weight"):
        torch.testing.assert_close(weights[1][name], (weights[0][name] + weights[2][name]) / 2)
    assert not torch.equal(weights[0]["points.xyz"], weights[2]["points.xyz"])


def test_an_edited_head_is_rendered_exported_and_edited_again(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("cgsgan.editing.FILM_FRAMES", 8)
    first, second = write_found(tmp_path / "a", 1), write_found(tmp_path / "b", 2)
    out = tmp_path / "mixed"
    assert main(["edit", str(first), "--mix", str(second), "--rows", "1-2", "--out", str(out), "--film"]) == 0
    assert "is at 1;" in capsys.readouterr().out
    a, b, mixed = (head_of(load_generator(folder)).ws for folder in (first, second, out))
    torch.testing.assert_close(mixed, torch.cat([a[:, :1], b[:, 1:3], a[:, 3:]], dim=1))
    with Image.open(out / "strip.png") as strip, Image.open(out / "film.webp") as film:
        assert strip.width > 1.5 * strip.height
        assert film.n_frames == 8  # type: ignore[attr-defined]
    again = tmp_path / "again"
    assert main(["edit", str(out), "--towards", "seed:5", "--amount", "0.25", "--out", str(again)]) == 0
    assert main(["render", str(again), "--ply"]) == 0
    assert (again / "renders" / "found-0.ply").is_file()
    expected = mixed.lerp(head_of(shipped(), 5).ws, 0.25)
    torch.testing.assert_close(head_of(load_generator(again)).ws, expected)


def test_directions_do_what_they_are_called(tmp_path: Path) -> None:
    generator = shipped()
    space = StyleSpace.of(generator.map_latents, generator.z_dim)
    start = head_of(generator, 3)
    moved = start.moved(direction_of(generator, "pc:2"), 1.5)
    change = space.to_coordinates(moved.ws) - space.to_coordinates(start.ws)
    expected = torch.zeros_like(change)
    expected[..., 2] = 1.5
    torch.testing.assert_close(change, expected, atol=1e-4, rtol=0)

    source = SceneSource(generator.network, generator.renderer)
    seeds = list(range(96))
    styles = generator.map_latents(latents_from_seeds(seeds, generator.z_dim))[:, 0]
    light = measure_heads(source, styles, "hair-lightness")
    labels = tmp_path / "light.json"
    labels.write_text(json.dumps(dict(zip(map(str, seeds), light.tolist()))))
    step = direction_of(generator, str(labels))
    others = generator.map_latents(latents_from_seeds(range(200, 216), generator.z_dim))[:, 0]
    rise = measure_heads(source, others + 2 * step, "hair-lightness") - measure_heads(
        source, others - 2 * step, "hair-lightness"
    )
    assert float((rise > 0.1).float().mean()) > 0.9


def test_what_cannot_be_done_is_one_clear_line(tmp_path: Path, capsys) -> None:
    found, file = write_found(tmp_path / "a", 1), tmp_path / "labels.json"
    stranger = write_found(tmp_path / "stranger", 2, mapping=0.1)
    file.write_text('{"0": 1, "1": "x"}')
    few = tmp_path / "few.json"
    few.write_text('{"0": 1, "1": 0}')
    head, shipped_file = str(found), str(SHIPPED_FILE)
    for arguments, message in (
        ([head], "one of --towards, --mix and --direction, got none"),
        ([head, "--towards", "seed:1", "--direction", "pc:0"], "--towards and --direction"),
        ([head, "--mix", "seed:1"], "--rows: goes with --mix"),
        ([head, "--towards", "seed:1", "--rows", "0"], "--rows: goes with --mix"),
        ([head, "--mix", "seed:1", "--rows", "9"], "expected rows of 0 to"),
        ([head, "--towards", "seed:x"], "expected something like seed:3"),
        ([head, "--towards", str(stranger)], "another generator"),
        ([head, "--towards", shipped_file], "comes with no head"),
        ([head, "--towards", "seed:1", "--amount", "1.5"], "--amount: expected 0 to 1"),
        ([head, "--direction", "pc:0", "--amount", "nan"], "--amount: expected -20 to 20"),
        ([head, "--direction", "pc:4096"], "directions: expected 0 to"),
        ([head, "--direction", "smile"], "hair-lightness"),
        ([head, "--direction", str(file)], "seeds to figures"),
        ([head, "--direction", str(few)], "at least 8 seeds"),
        ([head, "--direction", str(tmp_path / "none.json")], "seeds to figures"),
        ([head, "--direction", "pc:0", "--out", head], "is the head that is edited"),
        ([head, "--direction", "pc:0", "--out", str(file)], "is a file"),
        ([head, "--direction", "pc:0", "--seed", "-1"], "--seed: expected 0 to"),
        ([shipped_file, "--direction", "pc:0"], "or a seed"),
    ):
        assert main(["edit", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not Path("edited").exists()


@pytest.mark.parametrize("text", ["", "-", "1-0", "a", "0-3", "²", "-1"])
def test_rows_that_are_not_there_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--rows: expected rows of 0 to 2"):
        parse_rows(text, 3)


def test_rows_are_counted_with_the_last() -> None:
    assert parse_rows("0-2", 3) == slice(0, 3)
    assert parse_rows("1", 3) == slice(1, 2)
