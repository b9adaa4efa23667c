"""A run that scores itself: the best checkpoint is noted, kept and found, and no weight is another one for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from accelerate import Accelerator

import cgsgan
from cgsgan import experiment
from cgsgan.cli import main
from cgsgan.config import ExperimentConfig
from cgsgan.data.dataset import open_dataset
from cgsgan.data.synthetic import SyntheticConfig
from cgsgan.evaluation import EvaluationConfig, Evaluator, GeneratorScenes
from cgsgan.metrics.extractors import open_extractor
from cgsgan.training.checkpoint import find_generator, list_checkpoints, note_score, read_best
from cgsgan.training.generator_file import CheckpointError
from cgsgan.training.log import read_log
from cgsgan.training.milestones import Score
from cgsgan.training.run_folder import RunFolder
from tests.tiny_experiment import tiny_config, tiny_trainer

COUNT = 24


def heads_config(**training: object) -> ExperimentConfig:
    config = tiny_config(kimg=0.048, checkpoint_kimg=1.0, sample_kimg=1.0, keep_checkpoints=1, **training)
    return replace(config, data=replace(config.data, synthetic=SyntheticConfig(count=COUNT, resolution=32)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CGSGAN_CACHE", str(folder / "cache"))
        found = {"plain": RunFolder(folder / "plain"), "scored": RunFolder(folder / "scored")}
        experiment.train(heads_config(), found["plain"])
        experiment.train(heads_config(evaluate_kimg=0.016, evaluate_count=COUNT), found["scored"])
    return found


def scores(run: RunFolder) -> dict[float, float]:
    return {row["kimg"]: row["frd"] for row in read_log(run.log) if "frd" in row}


def test_scores_are_logged_and_the_best_checkpoint_stays(runs: dict[str, RunFolder]):
    run = runs["scored"]
    found = scores(run)
    assert list(found) == [0.016, 0.032, 0.048]
    best = read_best(run.checkpoints)
    assert best is not None
    kimg = min(found, key=found.__getitem__)
    assert best == {
        "checkpoint": f"kimg-{kimg:09.3f}",
        "metric": f"frd of {COUNT} pictures",
        "value": found[kimg],
    }
    names = [path.name for path in list_checkpoints(run.checkpoints)]
    assert names == sorted({best["checkpoint"], "kimg-00000.048"})


def test_the_best_stays_while_newer_ones_go(tmp_path: Path):
    values = iter([3.0, 1.0, 2.0, 4.0])
    config = tiny_config(kimg=0.032, evaluate_kimg=0.008, checkpoint_kimg=1.0, keep_checkpoints=1)
    trainer = tiny_trainer(config, tmp_path / "run", Accelerator(cpu=True))
    trainer.milestones.score = lambda ema: Score(name="frd", metric="frd", value=next(values))
    trainer.run.create("")
    trainer.train()
    assert [path.name for path in list_checkpoints(trainer.run.checkpoints)] == ["kimg-00000.016", "kimg-00000.032"]
    assert find_generator(trainer.run.path, best=True).parent.name == "kimg-00000.016"
    assert read_best(trainer.run.checkpoints) == {"checkpoint": "kimg-00000.016", "metric": "frd", "value": 1.0}


def test_scoring_changes_no_weight(runs: dict[str, RunFolder]):
    plain, scored = (run.checkpoints / "kimg-00000.048" / "training.safetensors" for run in runs.values())
    assert plain.read_bytes() == scored.read_bytes()
    assert not scores(runs["plain"])


def test_the_score_is_the_figure_of_evaluate(runs: dict[str, RunFolder]):
    run = runs["scored"]
    generator = cgsgan.load_generator(run.path, best=True)
    best = read_best(run.checkpoints)
    assert best is not None
    assert find_generator(run.path, best=True).parent.name == best["checkpoint"]
    evaluator = Evaluator(
        source=GeneratorScenes(generator),
        dataset=open_dataset(replace(generator.config.data, x_flip=False)),
        extractor=open_extractor("random"),
        config=EvaluationConfig(metrics=("fid",), count=COUNT, repeats=1),
        accelerator=Accelerator(cpu=True),
    )
    assert evaluator.measure()["figures"]["frd"]["mean"] == pytest.approx(best["value"], rel=1e-4)


def test_resuming_keeps_the_best_even_if_its_note_was_never_written(
    runs: dict[str, RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CGSGAN_CACHE", str(tmp_path / "cache"))
    run = RunFolder(tmp_path / "run")
    experiment.train(heads_config(evaluate_kimg=0.016, evaluate_count=COUNT, max_minutes=1e-9), run)
    assert list(scores(run)) == [0.008]  # time was over after one step, and that is scored too
    noted = read_best(run.checkpoints)
    (run.checkpoints / "best.json").unlink()  # killed between the checkpoint and the note
    experiment.train(heads_config(evaluate_kimg=0.016, evaluate_count=COUNT), run, resume=True)
    found = scores(run)
    assert list(found) == [0.008, 0.016, 0.032, 0.048]
    best = read_best(run.checkpoints)
    assert best is not None
    assert noted is not None
    assert best["value"] == min(found.values()) <= noted["value"]
    for kimg in (0.016, 0.032, 0.048):
        assert found[kimg] == scores(runs["scored"])[kimg]


def test_the_command_line_shows_the_best(runs: dict[str, RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture):
    options = ["--best", "--seeds", "0", "--out", str(tmp_path)]
    assert main(["render", str(runs["scored"].path), *options]) == 0
    assert (tmp_path / "grid.png").is_file()
    capsys.readouterr()
    assert main(["render", str(runs["plain"].path), *options]) != 0
    assert "none of its checkpoints has a score" in capsys.readouterr().err


def test_a_best_checkpoint_that_is_gone_is_no_bar(tmp_path: Path):
    for name in ("kimg-00001.000", "kimg-00002.000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text(json.dumps({}))
    assert note_score(tmp_path / "kimg-00001.000", "frd", 1.0)
    assert not note_score(tmp_path / "kimg-00002.000", "frd", 2.0)
    (tmp_path / "kimg-00001.000" / "state.json").unlink()
    assert note_score(tmp_path / "kimg-00002.000", "frd", 2.0)


def test_what_cannot_be_scored_is_refused_before_training(tmp_path: Path):
    with pytest.raises(ValueError, match=r"evaluate_count >= 8, got 1.0 and 4"):
        heads_config(evaluate_kimg=1.0, evaluate_count=4)
    missing = heads_config(evaluate_kimg=1.0, evaluate_features="inception", evaluate_weights="/nowhere.pth")
    with pytest.raises(ValueError, match=r"nowhere.pth: no such file"):
        experiment.train(missing, RunFolder(tmp_path / "run"))
    with pytest.raises(CheckpointError, match="no such file"):
        find_generator(tmp_path / "nothing", best=True)
