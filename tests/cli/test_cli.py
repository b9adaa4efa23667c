"""The commands as a user runs them: outputs, exit codes, one line for a mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cgsgan import load_generator
from cgsgan.cli import main
from cgsgan.cli.render_arguments import parse_background, parse_seeds
from cgsgan.config import load_config

ROOT = Path(__file__).parents[2]
TINY_OVERRIDES = [
    "--data.synthetic.count", "48", "--training.batch-size", "8", "--training.kimg", "0.016",
    "--training.checkpoint_kimg", "0.008", "--training.sample_kimg", "0.016", "--training.log_kimg", "0.008",
]  # fmt: skip


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    cache = pytest.MonkeyPatch()
    cache.setenv("CGSGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
    cache.chdir(ROOT)
    assert main(["train", "configs/quickstart.yaml", "--out", str(folder), *TINY_OVERRIDES]) == 0
    yield folder
    cache.undo()


def fails(argv: list[str], capsys: pytest.CaptureFixture[str], *words: str) -> None:
    code = main(argv)
    output = capsys.readouterr()
    assert code == 2
    assert len(output.err.strip().splitlines()) == 1, output.err
    assert "Traceback" not in output.err
    for word in words:
        assert word in output.err


@pytest.mark.parametrize(
    ("config", "override", "message"),
    [
        (
            "wysiwyg",
            ["--rendering.samples", "8"],
            "rendering: samples, strata: expected at least one sample per stratum",
        ),
        ("wysiwyg", ["--generator.decoder.start-beta", "0"], "decoder: beta is a length > 0 in world units"),
        ("wysiwyg", ["--training.surface.beta-final", "0"], "training.surface: beta is a length > 0"),
        ("wysiwyg", ["--generator.proposal.bins", "32"], "proposal.bins is 32 but rendering.bins is 48"),
        (
            "eg3d",
            ["--training.optimizer.generator-lr", "-1"],
            "training.optimizer.generator_lr: expected a finite number",
        ),
        ("eg3d", ["--training.loss.r1-gamma", "-1"], "training.loss.r1_gamma: expected a finite number >= 0, got -1"),
        ("eg3d", ["--training.kimg", "many"], "training.kimg"),
    ],
)
def test_values_without_a_meaning_on_the_command_line(
    config: str, override: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fails(
        ["train", str(ROOT / f"configs/{config}_heads64.yaml"), "--out", str(tmp_path / "run"), *override],
        capsys,
        message,
    )
    assert not (tmp_path / "run").exists()


def test_options_that_are_not_there_keep_their_suggestions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", str(ROOT / "configs/heads64.yaml"), "--training.kimgs", "3"])
    assert stop.value.code == 2
    assert "--training.kimg" in capsys.readouterr().err


def test_a_run_leaves_pictures_a_turntable_and_a_ply(run_folder: Path):
    assert {"config.yaml", "log.jsonl", "grid.png", "turntable.webp", "head.ply"} <= {
        p.name for p in run_folder.iterdir()
    }
    assert list((run_folder / "samples").iterdir())
    assert len(list((run_folder / "checkpoints").iterdir())) == 2


def test_render_and_info(run_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    options = ["--seeds", "0-1", "--turntable", "gif", "--frames", "3", "--size", "32", "--ply", "--grid"]
    assert main(["render", str(run_folder), *options, "--out", str(tmp_path)]) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"grid.png", "turntable.gif", "seed-0000.ply", "seed-0001.ply"}
    assert capsys.readouterr().out.count("wrote ") == 4
    assert main(["info", str(tmp_path / "seed-0001.ply")]) == 0
    assert main(["info", str(run_folder)]) == 0
    out = capsys.readouterr().out
    assert "64 px" in out
    assert "0.0 kimg" in out


def test_films_from_the_command_line(run_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    small = ["--frames", "4", "--size", "16", "--out", str(tmp_path)]
    shown = ["--seeds", "0-1", "--path", "spiral", "--show", "color", "normal", "--background", "#102030"]
    assert main(["render", str(run_folder), *shown, *small]) == 0  # an option of films asks for one
    assert main(["render", str(run_folder), "--seeds", "0-2", "--walk", "--turntable", "png", *small]) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"turntable-color-normal.webp", "walk"}
    with Image.open(tmp_path / "turntable-color-normal.webp") as film:
        assert film.size == (4 * 18 + 2, 20)
        corner = film.convert("RGB").getpixel((0, 0))
    assert max(abs(a - b) for a, b in zip(corner, (16, 32, 48))) <= 4  # WebP stores colour at half the resolution
    assert sorted(p.name for p in (tmp_path / "walk").iterdir()) == [f"0000{index}.png" for index in range(4)]
    said = capsys.readouterr()
    assert f"wrote {tmp_path / 'walk'}: 4 frames, 0.2 s" in said.out
    assert said.err.splitlines()[-1] == "frames of walk: 4/4"  # a pipe gets plain lines


def test_resume_continues_and_refuses_another_experiment(run_folder: Path, capsys: pytest.CaptureFixture[str]):
    for images, arguments in ((24, ["--resume", str(run_folder)]), (32, ["--out", str(run_folder), "--resume"])):
        assert main(["train", *arguments, "--training.kimg", str(images / 1000)]) == 0
        assert load_generator(run_folder).images_seen == images
        assert load_config(run_folder / "config.yaml").training.kimg == images / 1000
    checkpoint = max((run_folder / "checkpoints").iterdir())
    before = (checkpoint / "state.json").stat().st_mtime_ns
    assert main(["train", "--resume", str(run_folder)]) == 0  # nothing is left to do, and nothing is touched
    assert (checkpoint / "state.json").stat().st_mtime_ns == before
    capsys.readouterr()
    fails(["train", "--resume", str(run_folder), "--training.seed", "5"], capsys, "training.seed: 0 -> 5")
    fails(["train", "--out", str(run_folder), *TINY_OVERRIDES], capsys, "is not empty", "--resume")


def test_two_processes_train_and_resume_one_run(run_folder: Path, tmp_path: Path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
    out = tmp_path / "run"
    for arguments in (["--out", str(out), *TINY_OVERRIDES], ["--resume", str(out), "--training.kimg", "0.024"]):
        done = subprocess.run([*launch, *arguments], check=False, cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("run folder:") == 1
    assert load_generator(out).images_seen == 24
    assert len((out / "log.jsonl").read_text().splitlines()) == 3


def test_a_truncated_checkpoint_is_refused(run_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    data = next((run_folder / "checkpoints").glob("*/generator.safetensors")).read_bytes()
    (tmp_path / "half.safetensors").write_bytes(data[: len(data) // 2])
    fails(["render", str(tmp_path / "half.safetensors")], capsys, "half.safetensors", "not a readable")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["fly"], ["unknown command 'fly'", "train"]),
        (["train", "no.yaml"], ["no.yaml: cannot be read"]),
        (["train", "--resume"], ["--resume: which run?"]),
        (["train", "--resume", "nowhere"], ["nowhere", "not a run folder"]),
        (["render", "nowhere"], ["nowhere", "no such file or folder"]),
        (["render", "nowhere", "--seeds", "a-b"], ["--seeds: expected", "'a-b'"]),
        (["render", "nowhere", "--size", "3"], ["--size: expected 8 to 8192"]),
        (["render", "nowhere", "--fps", "nan"], ["--fps: expected 0.1 to 240, got nan"]),
        (["render", "nowhere", "--frames", "0"], ["--frames: expected 1 to 100000, got 0"]),
        (["render", "nowhere", "--pitch", "90"], ["--pitch: expected -89 to 89 degrees"]),
        (["render", "nowhere", "--show", "depth", "depth"], ["--show: expected", "each at most once"]),
        (["render", "nowhere", "--background", "1,2,256"], ["--background: expected white", "'1,2,256'"]),
        (
            ["render", "nowhere", "--background", "transparent", "--turntable", "mp4"],
            ["in mp4 holds none; take webp or png"],
        ),
        (["info", "README.md"], ["README.md", "not a readable safetensors file"]),
        (["train", "--data.path", "nowhere.zip"], ["nowhere.zip"]),
        (["train", "--data.resolution", "128"], ["--data.resolution 128", "set --resolution only"]),
        (["train", "--training.batch-size", "6"], ["training.batch_size: 6", "groups of 4"]),
        (["render", "nowhere", "--seeds", "0-999999999999"], ["--seeds: expected", "at most 4096"]),
    ],
)
def test_mistakes_get_one_line(
    argv: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.chdir(ROOT)
    if argv[0] == "train" and "--resume" not in argv and "no.yaml" not in argv:
        argv = [*argv, "--out", str(tmp_path / "out")]
    fails(argv, capsys, *words)
    assert not (tmp_path / "out").exists()


def test_wrong_options_exit_without_a_traceback(tmp_path: Path):
    for options in (["--training.kimg", "many"], ["--trainin.kimg", "3"]):
        command = [sys.executable, "train.py", *options, "--out", str(tmp_path / "o")]
        done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr + done.stdout
        assert "kimg" in done.stderr + done.stdout


def test_help_of_every_command(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    for command in ("train", "render", "export", "data", "report", "info"):
        with pytest.raises(SystemExit) as caught:
            main([command, "--help"])
        assert caught.value.code == 0


def test_backgrounds():
    assert parse_background("transparent") is None
    assert parse_background("black") == (0.0, 0.0, 0.0)
    assert parse_background("#ff0033") == parse_background("255, 0, 51") == (1.0, 0.0, 0.2)
    for bad in ("", "red", "#ff003", "1,2", "-1,2,3", "1,2,3,4", "0.5,0,0"):
        with pytest.raises(ValueError, match="--background: expected"):
            parse_background(bad)


def test_seed_lists():
    assert parse_seeds("0-2,7") == [0, 1, 2, 7]
    for bad in ("", "x", "3-1", "0-99999"):
        with pytest.raises(ValueError, match="--seeds"):
            parse_seeds(bad)
