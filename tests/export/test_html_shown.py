"""Pages of splats in Chromium, from disk, with the network blocked: what they show, and how they are used."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from cgsgan import load_generator
from cgsgan.export import ExportOptions, save_splat_page
from cgsgan.gallery import generate_scenes, latents_from_seeds
from cgsgan.generators import TrainedGenerator
from cgsgan.rendering.splatting import SplattingConfig, SplattingRenderer
from cgsgan.types import Gaussians
from tests.chromium import open_page
from tests.export.round_trips import random_scene
from tests.export.shown_page import ShownPage, ours, psnr, shown
from tests.viewers.axis_balls import axis_balls

LEAST_PSNR, LEAST_SSIM = 50.0, 0.998
"""Worst observed: 56.3 dB, 0.9990."""
TRAINING_SIZE = 64


def needles(count: int = 600) -> Gaussians:
    """Bright, askew, translucent, some thin: no flip, turn or other order leaves it as it is."""
    scene = random_scene(count)
    return replace(scene, means=scene.means * 0.5, scales=0.002 + scene.scales / 2)


@pytest.fixture(scope="module")
def generator() -> TrainedGenerator:
    return load_generator()


@pytest.fixture(scope="module")
def heads(generator: TrainedGenerator) -> list[Gaussians]:
    """The axis balls, and two heads of the generator that comes with the package."""
    made = generate_scenes(generator, latents_from_seeds([3, 1], generator.z_dim), truncation_psi=0.7)
    assert isinstance(made, Gaussians)
    return [axis_balls(), made.scene(0), made.scene(1)]


@pytest.fixture(scope="module")
def strip(heads: list[Gaussians], generator: TrainedGenerator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shown") / "heads & 100%.html"
    options = ExportOptions(extra_dilation=generator.dilation, generated=True)
    save_splat_page(path, list(zip(("balls", "seed 3", "<b>seed</b> 1"), heads)), options)
    return path


def assert_like(picture: np.ndarray, truth: np.ndarray) -> None:
    likeness = structural_similarity(picture, truth, channel_axis=2, data_range=1)
    assert psnr(picture, truth) >= LEAST_PSNR, (psnr(picture, truth), likeness)
    assert likeness >= LEAST_SSIM


def test_it_shows_what_the_renderer_of_the_training_shows(chromium, strip, heads, generator) -> None:
    with shown(chromium, strip) as page:
        for size, cameras in ((4 * TRAINING_SIZE, ((0, 0), (35, 12))), (512, ((-40, -12),))):
            page.bare(size, size)
            for number in (1, 2):
                for yaw, pitch in cameras:
                    truth = ours(generator.renderer, heads[number - 1], yaw, pitch, size=size)
                    assert_like(page.view(yaw, pitch, head=number), truth)
        # Twice as close is the middle of a picture of twice the size; a wide canvas shows more at the sides.
        page.bare(256, 256)
        assert_like(page.view(20, 5, zoom=2), ours(generator.renderer, heads[0], 20, 5, size=512)[128:384, 128:384])
        page.bare(400, 256)
        assert_like(page.view(20, 5)[:, 72:328], ours(generator.renderer, heads[0], 20, 5, size=256))


def test_a_file_without_dilation_is_filtered_by_the_page(chromium, tmp_path) -> None:
    scene = needles()
    save_splat_page(tmp_path / "file.html", [("needles", scene)])
    renderer = SplattingRenderer(SplattingConfig(antialiased=True), 96)  # 0.3 square pixels at this size
    with shown(chromium, tmp_path / "file.html") as page:
        page.bare(96, 96)
        assert_like(page.view(-100, 20), ours(renderer, scene, -100, 20, size=96))


def test_dragging_turns_it(chromium, strip, heads, generator) -> None:
    with shown(chromium, strip, address="still&head=2") as page:
        page.bare(256, 256)
        page.settle()
        mouse = page.page.mouse
        mouse.move(100, 120)
        mouse.down()
        mouse.move(140, 130, steps=4)
        mouse.up()
        yaw, pitch, zoom = page.settle()
        radians = 9 / (4.2647 * 256)  # of a pixel
        assert yaw == pytest.approx(-math.degrees(40 * radians), abs=0.02)
        assert pitch == pytest.approx(math.degrees(10 * radians), abs=0.02)
        assert zoom == 1
        assert_like(page.picture(), ours(generator.renderer, heads[1], yaw, pitch, size=256))
        mouse.wheel(0, -200)
        assert page.settle()[2] == pytest.approx(math.exp(0.3), abs=1e-3)
        mouse.dblclick(128, 128)
        assert page.settle() == [0, 0, 1]
        mouse.down(button="right")
        mouse.move(128 + 32, 128 - 16)
        mouse.up(button="right")
        assert page.settle() == [0, 0, 1]
        pixel = 2.7 / (4.2647 * 256)
        moved = ours(generator.renderer, heads[1], 0, 0, size=256, offset=(-32 * pixel, -16 * pixel, 0.0))
        assert_like(page.picture()[:-20, 40:], moved[:-20, 40:])  # beyond, what the training never saw fades


def test_touch_pinches_and_taps(chromium, strip) -> None:
    with shown(chromium, strip, touch=True) as page:
        page.bare(256, 256)
        page.settle()
        session = page.page.context.new_cdp_session(page.page)

        def touch(kind: str, *points: tuple[int, int], seconds: float | None = None) -> None:
            fingers = [{"x": x, "y": y, "id": index} for index, (x, y) in enumerate(points)]
            moment = {} if seconds is None else {"timestamp": seconds}
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers, **moment})

        def tap(x: int, y: int, seconds: float) -> None:
            """At a moment of our own: by the machine's clock two taps of a busy one are no double tap."""
            touch("touchStart", (x, y), seconds=seconds)
            touch("touchEnd", seconds=seconds + 0.05)

        touch("touchStart", (100, 128), (150, 128))
        touch("touchMove", (90, 128), (165, 128))
        touch("touchMove", (75, 128), (175, 128))
        touch("touchEnd")
        yaw, pitch, zoom = page.settle()
        assert (yaw, pitch) == (0, 0)
        assert zoom == pytest.approx(2, rel=0.02)
        start = time.time()
        for x, y, seconds in ((120, 120, 0), (122, 121, 0.5), (180, 121, 0.7)):  # too slow, too far apart
            tap(x, y, start + seconds)
            assert page.settle()[2] == pytest.approx(2, rel=0.02)
        tap(182, 122, start + 0.9)
        assert page.settle()[2] == 1


def press(page: ShownPage, name: str) -> list[float]:
    page.page.get_by_role("button", name=name, exact=True).click()
    return page.settle()


def test_buttons_and_keys(chromium, strip, heads, generator) -> None:
    with shown(chromium, strip) as page:
        page.settle()
        assert press(page, "Zoom in")[2] == 1.25
        assert press(page, "Zoom out")[2] == 1
        page.page.locator("#canvas").focus()
        page.page.keyboard.press("ArrowRight")
        assert page.settle()[0] < -3
        page.page.keyboard.press("ArrowUp")
        assert page.settle()[1] < -3
        assert press(page, "Reset the view") == [0, 0, 1]
        page.page.keyboard.press("Tab")  # from the reset button on
        page.page.keyboard.press("Enter")
        assert page.settle()[2] == 0.8
        page.page.locator("#background").fill("#204060")
        page.page.get_by_role("button", name="<b>seed</b> 1").click()
        assert page.page.locator("#caption").text_content() == f"<b>seed</b> 1 · {visible(heads[2]):,} Gaussians"
        press(page, "Reset the view")
        page.bare(200, 200)
        third = ours(generator.renderer, heads[2], 0, 0, size=200, background=(32 / 255, 64 / 255, 96 / 255))
        assert_like(page.picture(), third)


def visible(scene: Gaussians) -> int:
    return int((scene.opacities >= 1 / 255).sum())


def test_all_heads_side_by_side(chromium, strip, heads, generator) -> None:
    with shown(chromium, strip) as page:
        page.page.get_by_role("button", name="All", exact=True).click()
        page.bare(600, 200)
        assert page.page.locator("#caption").text_content() == f"3 heads · {sum(map(visible, heads)):,} Gaussians"
        picture = page.view(25, 0, head="all")
        for index, head in enumerate(heads):
            inner = ours(generator.renderer, head, 25, 0, size=180)  # nine tenths, so that they keep apart
            assert_like(picture[10:190, 200 * index + 10 : 200 * index + 190], inner)


def test_what_the_training_never_saw_fades(chromium, strip) -> None:
    with shown(chromium, strip, address="still&head=2") as page:
        page.bare(160, 480)
        picture = page.picture()
        assert picture[:150].min() > 0.995
        assert picture[330:].min() > 0.995
        assert picture[160:320].min() < 0.2


def test_it_plays_until_it_is_touched_and_never_for_who_asks_for_calm(chromium, strip) -> None:
    with shown(chromium, strip, address="", calm=False) as page:
        page.page.wait_for_selector("#poster", state="hidden")
        assert page.page.get_attribute("#play", "aria-pressed") == "true"
        page.page.wait_for_timeout(1500)
        assert page.page.get_attribute("#canvas", "data-view") is None
        page.page.mouse.click(250, 250)
        assert page.page.get_attribute("#play", "aria-pressed") == "false"
        yaw, _, _ = page.settle()
        assert abs(yaw) > 2
        frames = page.page.evaluate(FRAMES_OF_A_SECOND)
        assert frames == 0
        press_play = page.page.get_by_role("button", name="Play", exact=True)
        press_play.click()
        assert page.page.get_attribute("#play", "aria-pressed") == "true"
        page.page.keyboard.press("Escape")
        page.page.get_by_role("button", name="Pause", exact=True).click()
        page.page.emulate_media(reduced_motion="reduce")
        page.page.reload()
        assert page.settle() == [0, 0, 1]
        assert page.page.get_attribute("#play", "aria-pressed") == "false"


# Draw calls in a second in which nobody does anything.
FRAMES_OF_A_SECOND = """() => new Promise((resolve) => {
  const gl = document.getElementById("canvas").getContext("webgl2");
  const draw = gl.drawArraysInstanced;
  let count = 0;
  gl.drawArraysInstanced = (...all) => { count++; draw.apply(gl, all); };
  setTimeout(() => { delete gl.drawArraysInstanced; resolve(count); }, 1000);
})"""


def test_a_lost_graphics_card_comes_back(chromium, strip) -> None:
    with shown(chromium, strip, address="still&yaw=20") as page:
        page.bare(128, 128)
        before = page.picture()
        page.page.evaluate(
            "() => { window.lost = document.getElementById('canvas').getContext('webgl2')"
            ".getExtension('WEBGL_lose_context'); window.lost.loseContext(); }"
        )
        page.page.wait_for_selector("#message:not([hidden])")
        page.page.evaluate("() => window.lost.restoreContext()")
        page.page.wait_for_selector("#message", state="hidden")
        assert np.array_equal(page.picture(), before)


def test_without_webgl_it_says_so_and_shows_a_picture(chromium, strip) -> None:
    with open_page(chromium, 500, 400) as (page, troubles):
        page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null;")
        page.goto(strip.as_uri())
        page.wait_for_selector("#canvas[data-failed]", state="attached")
        assert "no WebGL 2" in (page.locator("#message").text_content() or "")
        assert page.locator("#poster").is_visible()
        assert page.get_by_role("button").count() == 0
        assert troubles == []


def test_eight_bits_do_without_the_half_floats(chromium, strip, heads, generator) -> None:
    with open_page(chromium, 400, 400) as (page, troubles):
        page.add_init_script(
            "const get = WebGL2RenderingContext.prototype.getExtension;"
            "WebGL2RenderingContext.prototype.getExtension = function (name) {"
            " return name.includes('color_buffer') ? null : get.call(this, name); };"
        )
        page.goto(f"{strip.as_uri()}#still&head=2")
        plain = ShownPage(page, troubles)
        plain.bare(256, 256)
        assert psnr(plain.picture(), ours(generator.renderer, heads[1], 0, 0, size=256)) > 30
        assert troubles == []


def test_phone_and_dark(chromium, strip) -> None:
    with shown(chromium, strip, (390, 780), address="still&head=3") as page:
        page.page.emulate_media(color_scheme="dark")
        page.settle()
        assert page.page.evaluate("() => document.documentElement.scrollWidth") == 390
        assert page.page.evaluate("() => document.documentElement.scrollHeight") == 780
        for name in ("Play", "Full screen"):
            box = page.page.get_by_role("button", name=name, exact=True).bounding_box()
            assert box is not None
            assert box["width"] >= 40
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390
        dark = page.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert dark == "rgb(19, 19, 22)"


def test_large_scenes_are_sorted_and_drawn(chromium, tmp_path) -> None:
    scene = needles(60_000)
    scene = replace(scene, scales=scene.scales / 4)  # or else software takes long to draw so many on top of one another
    save_splat_page(tmp_path / "large.html", [("needles", scene)])
    renderer = SplattingRenderer(SplattingConfig(antialiased=True), 128)
    with shown(chromium, tmp_path / "large.html") as page:
        page.bare(128, 128)
        assert_like(page.view(50, 10), ours(renderer, scene, 50, 10, size=128))
