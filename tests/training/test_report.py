"""Curves and the page about a run."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from PIL import Image

from cgsgan.cli import main
from cgsgan.config import dump_config
from cgsgan.export.charts import COLORS, Curve, Panel, draw_panels, ticks
from cgsgan.training.curves import curve_panels, save_curves
from tests.tiny_experiment import tiny_config, tiny_trainer


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 10.0, [0, 2, 4, 6, 8, 10]), (-0.7, 1.1, [-0.5, 0, 0.5, 1.0]), (61.0, 112.0, [70, 80, 90, 100, 110])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]):
    assert ticks(low, high) == pytest.approx(expected)


def ink(picture: Image.Image, color: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of the pixels of a colour below the legend."""
    pixels = np.asarray(picture).astype(int)
    rows, columns = np.nonzero(np.abs(pixels - color).max(axis=-1) < 40)
    return np.stack([rows, columns])[:, rows > 48]


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_rising_line_rises(logarithmic: bool):
    points = [(float(x), 10.0**x if logarithmic else float(x)) for x in range(5)]
    panel = Panel(title="t", curves=[Curve(name="n", points=points)], logarithmic=logarithmic)
    rows, columns = ink(draw_panels([panel], x_label="x"), COLORS[0])
    assert len(rows) > 200
    assert np.corrcoef(rows, columns)[0, 1] < -0.999  # straight, and up
    assert np.ptp(columns) > 450


def test_gaps_single_points_and_constants_are_drawn():
    points = [(0.0, 1.0), (1.0, 1.0), (2.0, math.nan), (3.0, 1.0)]
    rows, columns = ink(draw_panels([Panel(title="", curves=[Curve(name="", points=points)])], x_label=""), COLORS[0])
    assert np.ptp(rows) <= 5
    found = np.unique(columns)
    assert np.diff(found).max() > 200  # nothing between the second and the last point
    with pytest.raises(ValueError, match="at least one panel"):
        draw_panels([], x_label="")


def test_panels_follow_the_log(tmp_path: Path):
    rows = [
        {"time": 1.0, "kimg": 1.0, "real_logits": 0.5, "r1_penalty": 0.1, "depth": 3.0},
        {"event": "rollback", "kimg": 1.5},
        {"time": 2.0, "kimg": 2.0, "real_logits": 0.6, "depth": -3.0},
    ]
    panels = {panel.title: panel for panel in curve_panels(rows)}
    assert set(panels) == {"logits", "R1 penalty", "other terms"}
    assert panels["logits"].curves[0].points == [(1.0, 0.5), (2.0, 0.6)]
    assert panels["R1 penalty"].logarithmic
    assert not panels["other terms"].logarithmic  # one value is negative
    assert all(panel.marks == [1.5] for panel in panels.values())
    assert not save_curves(tmp_path / "none.jsonl", tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


class Links(HTMLParser):
    """Every address a page asks for, and its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.seen.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = tiny_config()
    trainer = tiny_trainer(config, tmp_path / "a <b> run", Accelerator(cpu=True))
    run = trainer.run
    run.create(dump_config(config))
    trainer.train()
    with run.log.open("a") as log:
        log.write(json.dumps({"event": "collapse", "kimg": 0.06, "text": "logits <script>"}) + "\n")
    for index in range(20):
        Image.new("RGB", (40, 20), (index, 0, 0)).save(run.samples / f"kimg-{index:05d}.000.png")
    assert main(["report", str(run.path)]) == 0
    text = (run.path / "report.html").read_text()
    page = Links()
    page.feed(text)
    assert not page.open
    assert page.addresses
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert page.seen.count("img") == 1 + 8
    assert "script" not in page.seen
    assert "url(" not in text
    assert "logits &lt;script&gt;" in text
    assert "<h1>a &lt;b&gt; run</h1>" in text
    assert [name for name in ("kimg-00000.000", "kimg-00019.000") if f'alt="{name}"' in text] == [
        "kimg-00000.000",
        "kimg-00019.000",
    ]
    assert "0.064 of 0.064 kimg" in text
    assert re.search(r"<td>kimg-00000.064</td><td class=\"number\">0.3</td>", text)
    capsys.readouterr()
    assert main(["report", str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err
