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
from cgsgan.models.presets import (
    PRESETS,
    published_discriminator,
    published_dual_discriminator,
    published_generator,
    published_triplane_generator,
)
from cgsgan.models.triplane.generator import TriPlaneGeneratorConfig
from cgsgan.rendering.volume import VolumeConfig

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


def test_the_kind_chooses_the_config_and_the_parts_must_fit():
    planes = {"generator": {"kind": "triplanes"}, "rendering": {"kind": "volume", "near": 2}}
    config = parse_config(planes, source="x")
    assert isinstance(config.generator, TriPlaneGeneratorConfig)
    assert isinstance(config.rendering, VolumeConfig)
    assert config.rendering.near == 2.0
    assert parse_config({}, source="x").generator.kind == "gaussians"  # files of old runs do not name it
    refused({"generator": {"kind": "triplane"}}, r"generator.kind: expected one of .*did you mean 'triplanes'\?")
    refused({"rendering": {"kind": 3}}, r"rendering.kind: expected one of \['splatting', 'volume', 'robust'\], got 3")
    refused({"generator": {"kind": "triplanes"}}, r"is triplanes, which rendering.kind volume draws; got .* splatting")
    refused({"rendering": {"kind": "volume"}}, r"is gaussians, which rendering.kind splatting draws; got .* volume")
    refused({**planes, "generator": {"kind": "triplanes", "points": {}}}, r"unknown key generator.points")
    refused({"discriminator": {"dual": True}}, r"discriminator.dual: only for generator.kind triplanes, got gaussians")
    refused({"training": {"planes": {"density_weight": 1}}}, r"density_weight: only for generator.kind triplanes")
    direct = {"kind": "triplanes", "superresolution": None}
    refused({**planes, "generator": direct, "discriminator": {"dual": True}}, r"generator.superresolution is null")
    refused({**planes, "training": {"planes": {"swap_final": 1.5}}}, r"training.planes.swap_final: expected a prob")


@pytest.mark.parametrize(
    ("name", "resolution"), [("eg3d_ffhq512", 512), ("eg3d_afhq512", 512), ("eg3d_shapenet128", 128)]
)
def test_published_tri_plane_configs_hold_the_published_networks(name: str, resolution: int):
    config = load_config(CONFIGS[0].parent / f"{name}.yaml")
    told = resolution == 512  # cars: the generator is not told cameras
    assert config.generator == published_triplane_generator(resolution, camera_conditioning=told)
    assert config.discriminator == published_dual_discriminator(resolution)
    optimizer, loss, planes = config.training.optimizer, config.training.loss, config.training.planes
    assert (optimizer.generator_lr, optimizer.discriminator_lr) == (0.0025, 0.002)
    assert (planes.density_weight, planes.density_interval) == (0.25, 4)
    assert loss.r1_gamma == {"eg3d_ffhq512": 1.0, "eg3d_afhq512": 5.0, "eg3d_shapenet128": 0.3}[name]


def test_the_second_stage_renders_the_same_networks_finer():
    first, second = (load_config(CONFIGS[0].parent / f"{name}.yaml") for name in ("eg3d_ffhq512", "eg3d_ffhq512_fine"))
    assert (first.generator, first.discriminator, first.rendering) == (
        second.generator, second.discriminator, second.rendering,
    )  # fmt: skip
    assert first.training.planes.final_neural_resolution is None
    assert second.training.planes.final_neural_resolution == 128
    assert second.training.start_from == "runs/eg3d_ffhq512"
