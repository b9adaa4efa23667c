"""The commands as a user runs them: outputs, exit codes, one line for a mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cgsgan import load_generator
from cgsgan.cli import main
from cgsgan.cli.render_arguments import parse_seeds
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


def test_seed_lists():
    assert parse_seeds("0-2,7") == [0, 1, 2, 7]
    for bad in ("", "x", "3-1", "0-99999"):
        with pytest.raises(ValueError, match="--seeds"):
            parse_seeds(bad)
