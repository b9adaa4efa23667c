"""Pages of splats as files; ``test_html_shown.py`` opens them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgsgan.export import ExportOptions, read_splat_page, save_splat_page, write_splats
from cgsgan.export.html import MODULES, join_modules
from cgsgan.export.page_pictures import FILLING, draw_front, frame_scene
from tests.export.round_trips import random_scene, read_mutated, refused
from tests.export.test_formats import matched, worst_errors

BOUNDS = {"means": 3.1e-8, "log_scales": 5e-5, "opacities": 0.002, "colors": 8e-6, "degrees": 0.28}
"""Worst observed: 3.0e-8, 4.6e-5, 0.00196, 7.6e-6, 0.2."""
NASTY = "</script><script>alert('&\"{{title}}')</script>"


class Elements(HTMLParser):
    """Tags with their attributes, and the text of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and data.strip():
            self.texts.append((self.tags[-1][0], data))


def parsed(path: Path) -> Elements:
    elements = Elements()
    elements.feed(path.read_text(encoding="utf-8"))
    return elements


@pytest.fixture(scope="module")
def strip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "strip.html"
    heads = [(NASTY, random_scene(40)), ("plain", random_scene(7, seed=1))]
    assert save_splat_page(path, heads, title=NASTY) == 47
    return path


def test_heads_come_back(strip: Path) -> None:
    heads = read_splat_page(strip)
    assert [name for name, _ in heads] == [NASTY, "plain"]
    for (_, back), scene in zip(heads, (random_scene(40), random_scene(7, seed=1))):
        for name, worst in worst_errors(matched(back, scene), scene).items():
            assert worst <= BOUNDS[name], (name, worst)


def test_colors_above_1_and_far_scenes_keep_their_precision(tmp_path: Path) -> None:
    scene = random_scene(50)
    wide = replace(scene, colors=scene.colors * 3.4, means=scene.means * 1000, scales=scene.scales * 1000)
    save_splat_page(tmp_path / "a.html", [("wide", wide)])
    errors = worst_errors(matched(read_splat_page(tmp_path / "a.html")[0][1], wide), wide)
    assert errors["colors"] < 3e-5  # 2.6e-5
    assert errors["means"] < 7e-5  # 3.1e-5


def test_names_and_titles_are_text(strip: Path) -> None:
    elements = parsed(strip)
    executed = [a for tag, a in elements.tags if tag == "script" and a.get("type") not in ("text/plain",)]
    assert [a["type"] for a in executed] == ["application/json", *["application/octet-stream"] * 2, "module"]
    assert ("title", NASTY) in elements.texts
    assert ("h1", NASTY) in elements.texts
    told = next(text for tag, text in elements.texts if tag == "script")
    assert json.loads(told)["heads"][0]["name"] == NASTY


def test_the_policy_allows_this_script_and_nothing_from_outside(strip: Path) -> None:
    elements, text = parsed(strip), strip.read_text(encoding="utf-8")
    policy = next(a["content"] for tag, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for directive, tag in (("script-src", "script"), ("style-src", "style")):
        content = [content for kind, content in elements.texts if kind == tag][-1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy
    for _, attributes in elements.tags:
        assert not attributes.keys() & {"style", "onclick", "onload", "onerror"}
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:image/webp;base64,") or name not in attributes
    assert not re.search(r"https?:|@import|url\(", text)


def test_the_modules_join_into_one_script() -> None:
    script = join_modules()
    assert not re.search(r"^(import|export) ", script, re.MULTILINE)
    names = re.findall(r"^(?:const|let|class|(?:async )?function) (\w+)", script, re.MULTILINE)
    assert len(names) == len(set(names)), "two modules have one name for two things"
    assert len(MODULES) == len(set(MODULES))
    if node := shutil.which("node"):
        checked = subprocess.run(
            [node, "--check", "--input-type=module"], input=script, text=True, capture_output=True, check=False
        )
        assert checked.returncode == 0, checked.stderr


def test_a_strip_has_pictures_and_a_single_head_has_none(strip: Path, tmp_path: Path) -> None:
    assert strip.read_text(encoding="utf-8").count("data:image/webp") == 3
    assert write_splats(tmp_path / "one.html", random_scene(5)) == 5
    one = tmp_path / "one.html"
    assert one.read_text(encoding="utf-8").count("data:image/webp") == 1
    assert "<nav" not in one.read_text(encoding="utf-8")
    assert read_splat_page(one)[0][0] == "one"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": []}, "1 to 64 heads on a page, got 0"),
        ({"heads": [("a", random_scene(3))] * 65}, "got 65"),
        ({"background": "white"}, "background like #ffffff, got 'white'"),
        ({"background": '#ffffff"'}, "background like #ffffff"),
        ({"options": ExportOptions(axes="opencv")}, "upright whatever the axes"),
        ({"options": ExportOptions(axes="blender")}, "'blender'"),
        (
            {"heads": [("a", random_scene(3)), ("b", replace(random_scene(3), opacities=torch.zeros(3)))]},
            "none of the 3",
        ),
    ],
)
def test_mistakes_are_refused_and_nothing_is_written(tmp_path: Path, change: dict, message: str) -> None:
    given = {"heads": [("a", random_scene(3))], **change}
    with pytest.raises(ValueError, match=message):
        save_splat_page(tmp_path / "a.html", **given)
    assert list(tmp_path.iterdir()) == []


def test_more_splats_than_cards_hold_are_refused(tmp_path: Path) -> None:
    big = random_scene(1).map(lambda tensor: tensor.expand(2_000_001, *tensor.shape[1:]))
    with pytest.raises(ValueError, match=r"a head on a page may have 2,000,000 Gaussians, got 2,000,001"):
        save_splat_page(tmp_path / "a.html", [("a", big)])
    half = big.map(lambda tensor: tensor[:1_400_000])
    with pytest.raises(ValueError, match=r"all heads together on a page may have 4,000,000 Gaussians, got 4,200,000"):
        save_splat_page(tmp_path / "a.html", [(name, half) for name in "abc"])


def test_damaged_pages_are_refused(tmp_path: Path, strip: Path) -> None:
    path, whole = tmp_path / "a.html", strip.read_bytes()
    assert "cgsgan wrote" in refused(path, b"<!DOCTYPE html>" + b" " * 100)
    assert "damaged one (JSONDecodeError)" in refused(path, whole.replace(b'{"heads"', b'{"heads'))
    assert "damaged one (RecursionError)" in refused(path, whole.replace(b'{"heads"', b"[" * 100_000))
    assert "got 1 of 2" in refused(path, whole.replace(b'id="splats-1"', b'id="splats-x"'))
    assert "count of 1 to" in refused(path, whole.replace(b'"count": 40', b'"count": 4.5'))
    assert "holds" in refused(path, whole.replace(b'"count": 40', b'"count": 41'))
    assert "holds more" in refused(path, whole.replace(b'"count": 40', b'"count": 39'))
    assert "1 finite numbers as peak" in refused(path, re.sub(rb'"peak": [\d.]+', b'"peak": NaN', whole, count=1))
    assert "3 finite numbers as low" in refused(path, re.sub(rb'"low": \[', b'"low": [1, ', whole, count=1))
    assert "damaged ones" in refused(path, re.sub(rb'(id="splats-0">.{40})..', rb"\1!!", whole))
    assert "damaged ones" in refused(path, re.sub(rb'(id="splats-0">)..', rb"\1AA", whole))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_pages_are_read_or_refused(tmp_path: Path, strip: Path, data: st.DataObject) -> None:
    # From where the heads begin: bytes of the viewer before it are not read.
    whole = strip.read_bytes()
    start = whole.index(b'<script type="application/json"')
    end = whole.index(b"</script>", start) + 10
    splats = whole.index(b'<script type="application/octet-stream"')
    read_mutated(tmp_path / "a.html", whole[start:end] + whole[splats:][:2500], data)


def test_framing() -> None:
    head = random_scene(500)
    heads_camera = frame_scene(head.means, generated=False)
    assert heads_camera.target == (0.0, 0.0, 0.0)
    assert (heads_camera.radius, heads_camera.near, heads_camera.trained) == (2.7, 0.01, False)
    far = head.map(lambda tensor: tensor)
    moved = frame_scene(far.means * 10 + torch.tensor([5.0, 0.0, 0.0]), generated=False)
    assert moved.target == pytest.approx((5, 0, 0), abs=0.5)
    assert moved.radius == pytest.approx(2.7 * 10 * 0.48 / FILLING, rel=0.03)
    assert frame_scene(head.means * 10, generated=True).radius == 2.7


def test_the_poster_does_not_depend_on_where_a_scene_lies_and_how_large_it_is() -> None:
    scene = random_scene(300)
    near = draw_front(scene, frame_scene(scene.means / 4, generated=False), dilation=0.0, size=48)
    assert near.shape == (4, 48, 48)
    scenes = [replace(scene, means=scene.means * f + 3 * (f - 1), scales=scene.scales * f) for f in (1.0, 4.0)]
    small, large = (replace(s, means=s.means + 7) for s in scenes)
    pictures = [draw_front(s, frame_scene(s.means, generated=False), dilation=0.0, size=48) for s in (small, large)]
    assert (pictures[0] - pictures[1]).abs().max() < 1e-4  # 1.8e-5
    assert pictures[0][3].max() > 0.3
