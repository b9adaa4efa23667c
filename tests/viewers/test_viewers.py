"""Our files opened in the viewers that people use, and compared with our own pictures.

Without Node, the viewers or Chromium these are skipped with the reason; with CGSGAN_REQUIRE_VIEWERS=1 they fail.
CGSGAN_NIGHTLY=1 runs those too that are too slow for each push; CGSGAN_VIEWER_PICTURES=FOLDER keeps the pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from cgsgan import load_generator
from cgsgan.export.images import save_image
from cgsgan.export.mesh import Mesh, write_mesh
from cgsgan.gallery import render_views
from tests.chromium import launch
from tests.viewers.axis_balls import axis_balls
from tests.viewers.clients import ViewerError, bundle_page, missing_viewers, parse_summary, render_in_page
from tests.viewers.pictures import FRONT, THREE_QUARTER, View, psnr
from tests.viewers.proofs import (
    GATES,
    HEAD_GATES,
    HEAD_VIEW,
    OPENGL,
    PROOFS,
    SIZE,
    Gate,
    Outcome,
    Proof,
    Scores,
    baked_head,
    fitted_head,
    open_file,
    plain_head,
    write_file,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from cgsgan.types import Gaussians


def require_viewers() -> None:
    missing = missing_viewers()
    if missing and os.environ.get("CGSGAN_REQUIRE_VIEWERS") == "1":
        pytest.fail(f"CGSGAN_REQUIRE_VIEWERS=1, but {missing}")
    if missing:
        pytest.skip(missing)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require_viewers()
    with launch() as started:
        yield started


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def balls() -> Gaussians:
    return axis_balls()


def keep_picture(name: str, outcome: Outcome) -> None:
    folder = os.environ.get("CGSGAN_VIEWER_PICTURES")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_image(Path(folder) / f"{name.replace(': ', '-').replace(', ', '-')}.png", outcome.image)


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.name)
def test_balls(proof: Proof, balls: Gaussians, bundles: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    require_viewers()
    if proof.nightly and os.environ.get("CGSGAN_NIGHTLY") != "1":
        pytest.skip("nightly: runs with CGSGAN_NIGHTLY=1")
    browser = None if proof.client == "splat-transform" else request.getfixturevalue("browser")
    path = write_file(proof, balls, tmp_path)
    outcome = open_file(proof, path, balls, SIZE, browser=browser, bundles=bundles)
    keep_picture(proof.name, outcome)
    assert outcome.scores.failure(GATES[proof.client]) is None
    if outcome.summary:
        assert outcome.summary.count == balls.count
        assert outcome.summary.broken == 0
        assert_bounds(outcome.summary.ranges, balls)


def assert_bounds(ranges: dict[str, tuple[float, float]], scene: Gaussians) -> None:
    """In OpenCV axes; 0.001 is four steps of the coarsest positions (SPZ), and their reach of six digits is below."""
    low, high = scene.means.min(dim=0).values.tolist(), scene.means.max(dim=0).values.tolist()
    expected = {"x": (low[0], high[0]), "y": (-high[1], -low[1]), "z": (-high[2], -low[2])}
    for axis, bounds in expected.items():
        assert ranges[axis] == pytest.approx(bounds, abs=1e-3), axis


@pytest.mark.parametrize("factor", [2, 4])
def test_a_head_looks_as_in_training_at_any_zoom(factor: int, tmp_path: Path, bundles: Path) -> None:
    """The dilation of the training size is in the scales: at twice and four times that size too, a viewer shows what
    the generator's own renderer shows there.
    """
    require_viewers()
    generator = load_generator()
    size = factor * generator.resolution
    plain, head = plain_head(generator), baked_head(generator)
    proof = Proof(client="splat-transform", file="head.ply", view=HEAD_VIEW)
    outcome = open_file(proof, write_file(proof, head, tmp_path), head, size, browser=None, bundles=bundles)
    keep_picture(f"{proof.client}-head-{size}", outcome)
    assert outcome.scores.failure(HEAD_GATES[proof.client]) is None
    own = render_views(
        generator.renderer,
        plain.map(lambda tensor: tensor[None]),
        HEAD_VIEW.cameras.map(lambda tensor: tensor[0]),
        size=size,
        background=(0.0, 0.0, 0.0),
    )[0, 0].clamp(0, 1)
    assert psnr(outcome.image, own) > 38  # 39.7 at 128 px, 41.3 at 256
    without = open_file(proof, write_file(proof, plain, tmp_path), plain, size, browser=None, bundles=bundles)
    assert psnr(without.image, own) < psnr(outcome.image, own) - 2  # 36.2, 30.3


def test_a_head_in_spark(browser: Browser, tmp_path: Path, bundles: Path) -> None:
    """It cuts colours above 1 off, unless it is told not to; a head that was fitted for that loses little."""
    head, fitted = baked_head(load_generator()), fitted_head(load_generator())
    scores = []
    for extended, written in ((True, head), (False, head), (False, fitted)):
        proof = Proof(client="spark", file="head.ply", options=OPENGL, extended=extended, view=HEAD_VIEW)
        path = write_file(proof, written, tmp_path)
        outcome = open_file(proof, path, head, 256, browser=browser, bundles=bundles)
        keep_picture(f"spark-head-{extended}-{len(scores)}", outcome)
        scores.append(outcome.scores)
    assert scores[0].failure(HEAD_GATES["spark"]) is None  # 41.0
    assert scores[1].std < 34  # 32.7 at 320 px
    assert scores[2].std > 37  # 38.0 at 320 px


def test_front(balls: Gaussians, tmp_path: Path, bundles: Path) -> None:
    require_viewers()
    proof = Proof(client="splat-transform", file="balls.ply", view=FRONT)
    outcome = open_file(proof, write_file(proof, balls, tmp_path), balls, SIZE, browser=None, bundles=bundles)
    keep_picture(proof.name, outcome)
    assert outcome.scores.failure(GATES[proof.client]) is None


def test_wrong_axes_miss_the_gate(balls: Gaussians, browser: Browser, tmp_path: Path, bundles: Path) -> None:
    """A file with y down that a page shows as it is: upside down, and far from ours."""
    proof = Proof(client="spark", file="balls.splat", turned=False)
    outcome = open_file(proof, write_file(proof, balls, tmp_path), balls, 128, browser=browser, bundles=bundles)
    assert max(outcome.scores.std, outcome.scores.aa) < 25
    assert outcome.scores.failure(GATES["spark"]) is not None


def test_what_is_no_splat_file_is_an_error_and_no_picture(browser: Browser, tmp_path: Path, bundles: Path) -> None:
    path = tmp_path / "broken.spz"
    path.write_bytes(b"no splats" * 9)
    with pytest.raises(ViewerError, match=r"broken\.spz"):
        render_in_page(browser, bundle_page("spark", bundles), path, FRONT, 64, turned=False)


OCTAHEDRON = [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
CORNERS = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]


def test_a_mesh_in_three_has_our_colors_where_we_put_them(browser: Browser, tmp_path: Path, bundles: Path) -> None:
    """``.glb`` of a surface: what went in comes out: linear in the file, and of no metal."""
    places = torch.tensor([[0.35, 0.0, 0.0], [0.0, 0.35, 0.0], [0.0, 0.0, 0.35]])
    colors = torch.tensor([[0.85, 0.12, 0.10], [0.15, 0.70, 0.20], [0.15, 0.25, 0.90]])
    mesh = Mesh(
        vertices=(places[:, None] + 0.1 * torch.tensor(CORNERS)).flatten(0, 1),
        faces=(torch.tensor(OCTAHEDRON) + 6 * torch.arange(3)[:, None, None]).flatten(0, 1),
        colors=colors.repeat_interleave(6, dim=0),
    )
    write_mesh(tmp_path / "axes.glb", mesh)
    image = render_in_page(browser, bundle_page("mesh", bundles), tmp_path / "axes.glb", THREE_QUARTER, 128)
    for place, color in zip(places, colors):
        point = (THREE_QUARTER.cameras.viewmats[0, 0] @ torch.cat([place, torch.ones(1)]))[:3]
        across, down, _ = (THREE_QUARTER.cameras.Ks(128, 128)[0, 0] @ point / point[2]).tolist()
        torch.testing.assert_close(image[:, int(down), int(across)], color, atol=3 / 255, rtol=0)  # 1.8


def test_gates_take_either_reference_but_not_neither() -> None:
    gate = Gate(std=38.0, aa=44.0, ssim=0.99)
    assert Scores(std=38.5, aa=30.0, ssim=0.995).failure(gate) is None
    assert Scores(std=30.0, aa=45.0, ssim=0.995).failure(gate) is None
    assert Scores(std=37.0, aa=43.0, ssim=0.995).failure(gate) is not None
    assert Scores(std=50.0, aa=50.0, ssim=0.9).failure(gate) is not None
    assert Scores(std=50.0, aa=20.0, ssim=0.999).failure(Gate(aa=34.0, ssim=0.9)) is not None


def test_summaries_are_read() -> None:
    said = "**Row Count:** 7\n\n| Column | min | max | median | mean | stdDev | nans | infs | histogram |\n"
    said += "|---|---|---|---|---|---|---|---|---|\n| x | -0.5 | 0.25 | 0 | 0 | 1 | 2 | 1 | x |\n"
    summary = parse_summary(said)
    assert (summary.count, summary.broken, summary.ranges) == (7, 3, {"x": (-0.5, 0.25)})
    with pytest.raises(ViewerError, match="summary"):
        parse_summary("nothing")


def test_the_view_of_a_proof_is_that_of_our_camera() -> None:
    eye = torch.tensor(View(name="side", yaw=90.0, pitch=0.0, radius=2.0).eye)
    torch.testing.assert_close(eye, torch.tensor([2.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    assert psnr(torch.zeros(3, 8, 8), torch.full((3, 8, 8), 0.1)) == pytest.approx(20.0, abs=1e-3)


def test_absent_viewers_skip_or_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.viewers.test_viewers.missing_viewers", lambda: "needs Node 20")
    monkeypatch.delenv("CGSGAN_REQUIRE_VIEWERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs Node 20"):
        require_viewers()
    monkeypatch.setenv("CGSGAN_REQUIRE_VIEWERS", "1")
    with pytest.raises(pytest.fail.Exception, match="CGSGAN_REQUIRE_VIEWERS=1, but needs Node 20"):
        require_viewers()
