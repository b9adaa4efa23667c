"""What README tells users to copy does what it says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cgsgan.training.checkpoint import list_checkpoints

ROOT = Path(__file__).parents[1]
SMALL = (
    "configs/quickstart.yaml --data.synthetic.count 64 "
    "--training.kimg 0.64 --training.checkpoint-kimg 0.016 --training.sample-kimg 10 --training.keep-checkpoints 2"
)


def python_blocks() -> list[str]:
    pages = [ROOT / "README.md", ROOT / "rasterizer" / "README.md", ROOT / "cgsgan" / "assets" / "README.md"]
    return [block for page in pages for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: block.strip().splitlines()[-1][:40])
def test_python_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def slurm_script() -> str:
    blocks = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


def write_command(folder: Path, name: str, lines: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{lines}\n")
    path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on one node, with commands that do what SLURM's do there."""
    if sys.platform == "win32" or shutil.which("bash") is None:
        pytest.skip("SLURM scripts are for bash")
    commands = tmp_path / "bin"
    commands.mkdir()
    write_command(commands, "srun", f'echo $$ >"{tmp_path}/step"; exec "$@"')
    write_command(commands, "torchrun", f'exec "{sys.executable}" -m torch.distributed.run "$@"')
    write_command(commands, "scontrol", f'[ "$1" = show ] && echo localhost || echo "$@" >>"{tmp_path}/requeued"')
    return {
        **os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "CGSGAN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": "4711", "SLURM_NNODES": "1",
        "SLURM_JOB_NODELIST": "localhost", "SLURM_GPUS_ON_NODE": "2",
    }  # fmt: skip


@pytest.mark.slow
def test_the_slurm_job_saves_when_told_to_and_goes_on_when_started_again(tmp_path: Path, cluster: dict[str, str]):
    run, script = tmp_path / "run", tmp_path / "job.sh"
    text = slurm_script()
    shorter = (("configs/ffhq512.yaml", SMALL), ("/shared/ffhq512", str(run)), (":29500", ":0"), ("-lt 600", "-lt 0"))
    for old, new in shorter:
        assert old in text
        text = text.replace(old, new)
    script.write_text(text)
    subprocess.run(["bash", "-n", str(script)], check=True)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(["bash", str(script)], cwd=ROOT, env=cluster, stderr=subprocess.PIPE)

    job = start()
    deadline = time.monotonic() + 300
    while not list_checkpoints(run / "checkpoints"):
        assert job.poll() is None, job.stderr.read().decode()[-2000:]  # type: ignore[union-attr]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(int((tmp_path / "step").read_text()), signal.SIGTERM)
    job.communicate(timeout=300)
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
    assert not (run / "grid.png").exists()
    stopped_at = list_checkpoints(run / "checkpoints")[-1].name
    assert stopped_at < "kimg-00000.640"

    job = start()
    job.communicate(timeout=300)
    assert job.returncode == 0
    assert list_checkpoints(run / "checkpoints")[-1].name == "kimg-00000.640"
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
