"""The viewers that exported files are opened in: what they need, how they are asked for a picture.

``npm ci`` in this folder installs them (Node 20; none of their install scripts is run). splat-transform draws in Node
through the Vulkan driver that comes with Chromium; the others are pages in a headless Chromium. Each is asked for the
view that :mod:`tests.viewers.pictures` draws, in its own axes.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from tests.chromium import find_chromium, missing_browser, open_page
from tests.viewers.pictures import View

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

FOLDER = Path(__file__).parent
MODULES = FOLDER / "node_modules"
SPLAT_TRANSFORM = MODULES / "@playcanvas" / "splat-transform" / "bin" / "cli.mjs"
LIMIT = 300
"""Seconds; what takes longer hangs."""
SMALLEST_FRAME = 320
"""splat-transform 2.7.1 gives a black picture of 256 pixels or fewer: smaller ones are cut out of larger ones."""
SHOW = """([request, limit]) => Promise.race([
  window.show(request),
  new Promise((_, fail) => setTimeout(() => fail(new Error("shows nothing")), limit)),
])"""
KEEP_PIXELS = """
const original = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, options) {
  return original.call(this, kind, { ...options, preserveDrawingBuffer: true });
};
"""
"""A page of somebody else clears its canvas after each frame; this lets us read it at any time."""
SETTLED = """async ([limit]) => {
  const canvas = document.querySelector("canvas");
  let last = "", same = 0;
  for (const start = Date.now(); Date.now() - start < limit; ) {
    await new Promise((done) => setTimeout(done, 500));
    const picture = canvas.toDataURL("image/png");
    same = picture === last && picture.length > 2000 ? same + 1 : 0;
    if (same >= 6) return picture;
    last = picture;
  }
  throw new Error("the picture does not come to rest");
}"""
SITE = "http://127.0.0.1/viewers"
"""What pages believe to come from; every file is handed to them, nothing listens there."""


class ViewerError(RuntimeError):
    """A viewer refused a file, or what it showed cannot be had."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What splat-transform found in a file, in the axes it reads into (those of an OpenCV ``.ply``).

    Attributes:
        count: splats.
        ranges: smallest and largest value of each column, activated.
        broken: NaN and infinite values.
    """

    count: int
    ranges: dict[str, tuple[float, float]]
    broken: int


def missing_viewers() -> str | None:
    """What is missing to open files in viewers, or None."""
    if shutil.which("node") is None:
        return "needs Node 20: apt-get install nodejs npm"
    if not SPLAT_TRANSFORM.exists():
        return f"needs the viewers: npm ci --prefix {FOLDER}"
    if missing_browser():
        return missing_browser()
    return None if _vulkan_folder() else "needs vk_swiftshader_icd.json, which comes with Debian's chromium"


def _vulkan_folder() -> Path | None:
    beside = Path(find_chromium() or "").resolve().parent
    folders = (beside, Path("/usr/lib/chromium"), Path("/usr/lib/chromium-browser"))
    return next((folder for folder in folders if (folder / "vk_swiftshader_icd.json").exists()), None)


def run_splat_transform(*arguments: str | Path) -> str:
    """Its standard output.

    Raises:
        ViewerError: when it refuses, or writes nothing.
    """
    vulkan = _vulkan_folder()
    assert vulkan is not None, missing_viewers()
    with tempfile.TemporaryDirectory() as runtime:
        environment = os.environ | {"VK_ICD_FILENAMES": str(vulkan / "vk_swiftshader_icd.json")}
        environment |= {"LD_LIBRARY_PATH": str(vulkan), "XDG_RUNTIME_DIR": runtime}
        return _run(["node", SPLAT_TRANSFORM, "-q", "-w", *arguments], environment)


def _run(command: list[str | Path], environment: dict[str, str] | None = None) -> str:
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise ViewerError(f"{' '.join(words)}: not done after {LIMIT} s") from None
    if done.returncode:
        raise ViewerError(f"{' '.join(words)}: {(done.stdout + done.stderr)[-800:]}")
    return done.stdout


def render_in_splat_transform(path: Path, view: View, size: int) -> tuple[Float[Tensor, "3 size size"], Summary]:
    """What it draws of a file, and what it says of its numbers.

    Its world is that of an OpenCV ``.ply`` turned by 180 degrees about Z, so our camera stands at (-x, y, -z) there.
    """
    factor = 1 if size >= SMALLEST_FRAME else 1 + 2 * math.ceil((SMALLEST_FRAME / size - 1) / 2)
    fov = 2 * math.degrees(math.atan(factor * math.tan(math.radians(view.fov) / 2)))
    x, y, z = view.eye
    frame = factor * size
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.webp"
        camera = [f"--camera={-x},{y},{-z}", "--look-at=0,0,0", "--up=0,1,0", f"--fov={fov}"]
        said = run_splat_transform(
            path, "-m", picture, *camera, f"--resolution={frame}x{frame}", "--background=0,0,0", "--near=0.05"
        )
        image = _from_picture(picture.read_bytes())
    edge = (frame - size) // 2
    return image[:, edge : edge + size, edge : edge + size], parse_summary(said)


def parse_summary(said: str) -> Summary:
    """Read the table that ``splat-transform -m`` prints."""
    count = re.search(r"\*\*Row Count:\*\* (\d+)", said)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("| ")]
    if count is None or not rows:
        raise ViewerError(f"splat-transform: expected a summary, got {said[:300]!r}")
    return Summary(
        count=int(count[1]),
        ranges={row[0]: (float(row[1]), float(row[2])) for row in rows[1:]},
        broken=sum(int(row[6]) + int(row[7]) for row in rows[1:]),
    )


def bundle_page(name: str, folder: Path) -> Path:
    """``pages/NAME.js`` with all it needs in one file, as web developers ship it."""
    bundle = folder / f"{name}.js"
    if not bundle.exists():
        entry = FOLDER / "pages" / f"{name}.js"
        options = ["--bundle", "--minify", "--format=iife", f"--outfile={bundle}", "--log-level=warning"]
        _run([MODULES / ".bin" / "esbuild", entry, *options])
    return bundle


def render_in_page(
    browser: Browser, bundle: Path, path: Path, view: View, size: int, **options: bool
) -> Float[Tensor, "3 size size"]:
    """What a page of ``pages/`` draws of a file.

    Args:
        browser: as :func:`tests.chromium.launch` gives it.
        bundle: what :func:`bundle_page` gave.
        path: the file; the page loads it by its name.
        view: from where.
        size: pixels.
        options: what else the page is told (``turned``: the file is y down and the viewer shows axes as they are;
            ``extended``: Spark shall keep colours above 1).

    Raises:
        ViewerError: when the page reports an error, asks for anything from outside, or shows nothing.
    """
    given = {f"{SITE}/{path.name}": path, f"{SITE}/{bundle.name}": bundle}
    request = {"url": f"{SITE}/{path.name}", "eye": view.eye, "fov": view.fov, "size": size, **options}
    with open_page(browser, size, size) as (page, troubles):
        page.route(f"{SITE}/", lambda route: route.fulfill(body="<!doctype html><title>viewer</title>"))
        for url, file in given.items():
            page.route(url, partial(_give, file))
        page.goto(f"{SITE}/")
        page.add_script_tag(url=f"{SITE}/{bundle.name}")
        try:
            picture = page.evaluate(SHOW, [request, 1000 * LIMIT])
        except Exception as error:
            raise ViewerError(f"{bundle.stem}, {path.name}: {error} {troubles}") from None
    if [trouble for trouble in troubles if "favicon" not in trouble]:
        raise ViewerError(f"{bundle.stem}, {path.name}: {troubles}")
    return _from_picture(base64.b64decode(picture.split(",", 1)[1]))


def _give(file: Path, route: Route) -> None:
    route.fulfill(path=file)


def _from_picture(data: bytes) -> Float[Tensor, "3 height width"]:
    with Image.open(io.BytesIO(data)) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(pixels / 255).movedim(-1, 0)


def versions() -> dict[str, str]:
    """What is installed, by the name of the package."""
    locked = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    return {name: json.loads((MODULES / name / "package.json").read_text())["version"] for name in locked}


def render_in_supersplat(browser: Browser, path: Path, view: View, size: int) -> Float[Tensor, "3 size size"]:
    """What the SuperSplat viewer shows: the page that splat-transform makes of a file, with our camera in its settings.

    Raises:
        ViewerError: as :func:`render_in_page`.
    """
    x, y, z = view.eye
    settings = {
        "camera": {"fov": view.fov, "position": [-x, y, -z], "target": [0, 0, 0], "startAnim": "none", "animTrack": ""},
        "background": {"color": [0, 0, 0]},
        "animTracks": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        written, html = Path(folder) / "settings.json", Path(folder) / "page.html"
        written.write_text(json.dumps(settings))
        run_splat_transform(path, "-E", written, html)
        with open_page(browser, size, size) as (page, troubles):
            page.add_init_script(KEEP_PIXELS)
            page.route(f"{SITE}/**", partial(_give, html))
            page.goto(f"{SITE}/page.html?noui&noanim&webgl")
            page.wait_for_selector("canvas")
            try:
                picture = page.evaluate(SETTLED, [1000 * LIMIT])
            except Exception as error:
                raise ViewerError(f"SuperSplat, {path.name}: {error} {troubles}") from None
    return _from_picture(base64.b64decode(picture.split(",", 1)[1]))
