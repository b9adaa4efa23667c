from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cgsgan.cameras import Cameras, orbit, yaw_pitch
from cgsgan.data.check import check_dataset
from cgsgan.data.dataset import DataConfig, open_dataset
from cgsgan.data.head_people import STYLES, People, sample_people
from cgsgan.data.head_renderer import HEAD_SCALE, render_people
from cgsgan.data.head_shapes import Points, nearest
from cgsgan.data.labels import flip_labels
from cgsgan.data.synthetic import SyntheticConfig, make_synthetic

SIZE = 32


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Many small operations: on a busy machine torch's threads would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def people() -> People:
    return sample_people(0, range(16))


@pytest.fixture(scope="module")
def frontal(people: People) -> Tensor:
    return render_people(people, orbit(torch.zeros(16), torch.zeros(16)), SIZE)


def test_pictures_depend_on_seed_and_index_only(tmp_path: Path) -> None:
    few = make_synthetic(SyntheticConfig(count=3, resolution=SIZE, seed=4), tmp_path / "few.zip")
    many = make_synthetic(SyntheticConfig(count=20, resolution=SIZE, seed=4), tmp_path / "many.zip")
    other = make_synthetic(SyntheticConfig(count=3, resolution=SIZE, seed=5), tmp_path / "other.zip")
    with zipfile.ZipFile(few) as a, zipfile.ZipFile(many) as b, zipfile.ZipFile(other) as c:
        names = [name for name in a.namelist() if name.endswith(".png")]
        assert len(names) == 3
        assert len(b.namelist()) == 21
        for name in names:
            assert a.read(name) == b.read(name)
            assert a.read(name) != c.read(name)
        labels = json.loads(b.read("dataset.json"))["labels"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["few.zip", "many.zip", "other.zip"]
    assert check_dataset(many).problems == ()
    assert len(labels) == 20


def test_dataset_without_a_path_is_made_once(cache_folder: Path) -> None:
    config = DataConfig(resolution=16, synthetic=SyntheticConfig(count=5, resolution=16))
    tasks: list[str] = []
    dataset = open_dataset(config, progress=lambda task, done, total: tasks.append(task))
    assert len(dataset) == 10
    assert set(tasks) == {"making heads", "decoding pictures"}
    tasks.clear()
    again = open_dataset(config, progress=lambda task, done, total: tasks.append(task))
    assert tasks == []
    assert torch.equal(again.read(range(10)).premultiplied, dataset.read(range(10)).premultiplied)


def test_failed_making_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(task: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_synthetic(SyntheticConfig(count=2, resolution=8), tmp_path / "a.zip", stop)
    assert list(tmp_path.iterdir()) == []


def test_heads_are_upright_and_fill_the_picture(frontal: Tensor) -> None:
    alpha = frontal[:, 3]
    coverage = alpha.mean((1, 2))
    # Observed 0.36..0.56.
    assert float(coverage.min()) > 0.25
    assert float(coverage.max()) < 0.75
    assert float(alpha[:, 0].mean()) < 0.1  # sky above the head
    assert bool((alpha[:, -1].mean(-1) > 0.4).all())  # shoulders reach the lower edge...
    neck = alpha[:, int(SIZE * 0.78)].mean(-1)
    assert bool((alpha[:, -1].mean(-1) > neck - 0.05).all())  # ...and are wider than the neck
    assert bool((alpha[:, SIZE // 2, SIZE // 2] == 1).all())


def test_face_is_in_front_and_hair_behind(people: People, frontal: Tensor) -> None:
    back = render_people(people, orbit(torch.full((16,), math.pi), torch.zeros(16)), SIZE)
    haired = people.style[:, 0] != STYLES.index("bald")
    haired &= people.style[:, 0] != STYLES.index("beanie")
    middle = (slice(None), slice(None), slice(11, 15), slice(14, 18))

    def distance(images: Tensor, color: Tensor) -> Tensor:
        # Directions of colours: brightness belongs to the light.
        seen = torch.nn.functional.normalize(images[middle][:, :3].mean((2, 3)), dim=1)
        return (seen - torch.nn.functional.normalize(color[..., 0], dim=1)).norm(dim=1)

    hair = people.hair_color
    assert bool((distance(back, hair) < 0.15).logical_or(~haired).all())
    contrast = (back[middle][:, :3] - frontal[middle][:, :3]).abs().mean((1, 2, 3))
    assert float(contrast[haired].mean()) > 0.1


def test_mirrored_camera_sees_the_mirrored_head(people: People) -> None:
    zero = torch.zeros_like(people.gaze_x)
    # Without hair strands the persons are mirror-symmetric, but for light, gaze and parting.
    who = replace(people, light_x=zero, gaze_x=zero, parting=zero, style=torch.zeros_like(people.style), glasses=zero)
    labels = orbit(torch.linspace(-1, 1, 16), torch.linspace(0.3, -0.3, 16)).to_labels()
    straight = render_people(who, Cameras.from_labels(labels), SIZE)
    mirrored = render_people(who, Cameras.from_labels(flip_labels(labels)), SIZE)
    difference = (straight.flip(-1) - mirrored).abs()
    # The glint in the eyes sits on one side; observed mean 7e-4.
    assert float(difference.mean()) < 2e-3
    turned = (straight - mirrored).abs()
    assert float(turned.mean()) > 20 * float(difference.mean())


def test_everything_lies_inside_the_unit_box(people: People) -> None:
    grid = torch.linspace(-0.7, 0.7, 57)
    x, y, z = (axis.reshape(1, -1).expand(8, -1) for axis in torch.meshgrid(grid, grid, grid, indexing="ij"))
    inside = nearest(Points(x, y, z), people.select(slice(0, 8))) < 0
    for axis in (x, y, z):
        assert float((axis.abs() * HEAD_SCALE)[inside].max()) <= 0.5


def test_population_varies_and_cameras_follow_the_distribution() -> None:
    crowd = sample_people(1, range(2000))
    styles = torch.bincount(crowd.style[:, 0].long(), minlength=len(STYLES))
    assert int(styles.min()) > 40
    yaw, pitch = torch.rad2deg(crowd.yaw), torch.rad2deg(crowd.pitch)
    assert float(yaw.abs().max()) <= 60.01
    assert float(pitch.abs().max()) <= 25.01
    # sd of 0.7 N(0, 20) + 0.3 U(-60, 60) is sqrt(0.7 * 400 + 0.3 * 1200) = 25.3 degrees.
    assert abs(float(yaw.std()) - 25.3) < 1.5
    assert abs(float(pitch.std()) - 9) < 0.6
    assert 0.15 < float(crowd.glasses.mean()) < 0.25
    exact = yaw_pitch(orbit(crowd.yaw[:, 0], crowd.pitch[:, 0]))
    torch.testing.assert_close(exact[0], crowd.yaw[:, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{"count": 0}, {"resolution": 7}, {"resolution": 4}, {"seed": -1}])
def test_bad_settings_are_named(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"^synthetic\.{next(iter(changes))}: expected"):
        SyntheticConfig(**changes)


def test_archive_must_be_a_zip(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"give a name that ends in \.zip"):
        make_synthetic(SyntheticConfig(count=1, resolution=8), tmp_path / "heads")
