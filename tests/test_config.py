"""Configs: strict reading, clear errors, lossless writing, and the files that ship."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cgsgan.config import (
    ConfigError,
    config_to_dict,
    differing_fields,
    dump_config,
    load_config,
    parse_config,
)
from cgsgan.models.presets import PRESETS, published_discriminator, published_generator

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(values, source="here.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_configs_load_and_survive_writing(path: Path):
    config = load_config(path)
    assert config.name == path.stem
    again = parse_config(yaml.safe_load(dump_config(config)), source="dump")
    assert again == config
    assert not differing_fields(again, config)
    for part in (config.data, config.generator, config.discriminator):
        assert part.resolution == config.resolution


def test_there_is_a_config_for_every_published_size():
    names = {path.stem for path in CONFIGS}
    assert {"quickstart", "heads64", "heads128", "ffhq256", "ffhq512", "ffhq1024", "ffhq2048"} <= names


def test_numbers_like_1e_3_are_numbers():
    config = parse_config({"training": {"optimizer": {"generator_lr": "1e-3"}}}, source="x")
    assert config.training.optimizer.generator_lr == 1e-3
    assert parse_config(yaml.safe_load("training: {kimg: 5}"), source="x").training.kimg == 5.0


def test_unknown_keys_name_their_path_and_the_likely_word():
    refused({"trainig": {}}, r"^here.yaml: unknown key trainig; did you mean training\?")
    refused({"training": {"batchsize": 3}}, r"unknown key training.batchsize; did you mean training.batch_size\?")
    refused({"training": {"loss": {"zzz": 3}}}, r"unknown key training.loss.zzz; known here: objective")


def test_wrong_types_name_their_path():
    refused({"training": {"batch_size": 2.5}}, r"training.batch_size: expected int, got 2.5 \(float\)")
    refused({"training": {"batch_size": True}}, r"training.batch_size: expected int, got True")
    refused({"training": {"kimg": "many"}}, r"training.kimg: expected float, got 'many'")
    refused({"training": 3}, r"training.: expected a mapping, got 3")
    refused({"rendering": {"backend": "cpuu"}}, r"rendering.backend: .*did you mean 'cpu'\?")
    refused({"generator": {"anchors": {"split_factors": [1, "4"]}}}, r"split_factors\[1\]: expected int, got '4'")
    refused({"generator": {"anchors": {"split_factors": 4}}}, r"split_factors: expected a list, got 4")


def test_values_that_no_run_can_use_are_refused():
    refused({"training": {"kimg": 0}}, r"training.kimg: expected a finite number > 0")
    refused({"resolution": 100}, r"resolution must be a power of two")


def test_one_resolution_rules_all():
    refused({"resolution": 64, "data": {"resolution": 128}}, r"data.resolution is 128 but resolution is 64")
    config = parse_config({"resolution": 256}, source="x")
    assert config.discriminator.resolution == config.generator.resolution == config.data.resolution == 256


def test_base_is_merged_below_and_limited_to_one_parent(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("training: {kimg: 7, batch_size: 4}\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\ntraining: {kimg: 9}\n")
    (tmp_path / "c.yaml").write_text("base: b.yaml\n")
    config = load_config(tmp_path / "b.yaml")
    assert (config.training.kimg, config.training.batch_size) == (9.0, 4)
    with pytest.raises(ConfigError, match="one parent is the limit"):
        load_config(tmp_path / "c.yaml")


def test_unreadable_files_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nothing.yaml: cannot be read"):
        load_config(tmp_path / "nothing.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError, match=r"bad.yaml: not valid yaml"):
        load_config(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"list.yaml: expected a mapping"):
        load_config(tmp_path / "list.yaml")


def test_yaml_cannot_run_code(tmp_path: Path):
    marker = tmp_path / "ran"
    (tmp_path / "evil.yaml").write_text(f"name: !!python/object/apply:os.system ['touch {marker}']\n")
    with pytest.raises(ConfigError, match="not valid yaml"):
        load_config(tmp_path / "evil.yaml")
    assert not marker.exists()


def test_differences_are_named_with_both_values():
    first = parse_config({}, source="x")
    second = parse_config({"training": {"seed": 3}}, source="x")
    assert differing_fields(first, second) == ["training.seed: 0 -> 3"]
    assert config_to_dict(first)["training"]["optimizer"]["beta2"] == 0.99


@pytest.mark.parametrize("size", [256, 512, 1024, 2048])
def test_published_configs_hold_the_published_networks(size: int):
    config = load_config(CONFIGS[0].parent / f"ffhq{size}.yaml")
    assert config.generator == replace(published_generator(size), xyz_group="points_and_heads")
    assert config.discriminator == published_discriminator(size)


def test_the_quickstart_config_holds_the_quickstart_networks():
    for name in ("quickstart", "heads64"):
        config = load_config(CONFIGS[0].parent / f"{name}.yaml")
        assert (config.generator, config.discriminator) == PRESETS["quickstart"]
