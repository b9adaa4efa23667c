"""A page of splats as Chromium shows it: what stands on its canvas, and how it answers."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from cgsgan.cameras import orbit
from cgsgan.gallery import render_views
from cgsgan.rendering.splatting import SplattingRenderer
from cgsgan.types import Gaussians
from tests.chromium import open_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# The canvas alone, at whole pixels, without its rounded corners and the buttons above it.
BARE = """([width, height]) => {
  document.querySelector(".tools").hidden = true;
  Object.assign(document.getElementById("stage").style, { position: "fixed", inset: 0, margin: 0, borderRadius: 0 });
  Object.assign(document.getElementById("canvas").style, { width: `${width}px`, height: `${height}px` });
}"""


class ShownPage:
    """One open page."""

    def __init__(self, page: Page, troubles: list[str]) -> None:
        self.page = page
        self.troubles = troubles

    def settle(self) -> list[float]:
        """Wait until nothing moves and all is drawn; yaw and pitch in degrees, zoom."""
        self.page.wait_for_selector("#canvas[data-view]", state="attached")
        return [float(word) for word in (self.page.get_attribute("#canvas", "data-view") or "").split()]

    def show(self, address: str) -> None:
        """Go to a view as the page's address names it."""
        self.page.evaluate("(address) => { location.hash = address; }", address)

    def bare(self, width: int, height: int) -> None:
        """The canvas alone, of this many pixels."""
        self.page.evaluate(BARE, [width, height])
        self.page.wait_for_selector(f"#canvas[width='{width}'][height='{height}']", state="attached")

    def picture(self) -> np.ndarray:
        """The canvas, when nothing moves; [height, width, 3] in [0, 1]."""
        self.settle()
        shot = self.page.locator("#canvas").screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")) / 255

    def view(self, yaw: float | int, pitch: float | int, *, zoom: float | int = 1, head: int | str = 1) -> np.ndarray:
        """The picture from a camera; degrees."""
        self.show(f"yaw={yaw}&pitch={pitch}&zoom={zoom}&head={head}&still")
        self.page.wait_for_selector(f"#canvas[data-view='{yaw:.3f} {pitch:.3f} {zoom:.3f}']", state="attached")
        return self.picture()


@contextmanager
def shown(
    browser: Browser,
    path: Path,
    size: tuple[int, int] = (640, 560),
    *,
    address: str = "still",
    touch: bool = False,
    calm: bool = True,
) -> Iterator[ShownPage]:
    """Open a page from disk; at the end, nothing went wrong and nothing was asked for. ``calm``: without animation."""
    with open_page(browser, *size, touch=touch) as (page, troubles):
        if calm:
            page.emulate_media(reduced_motion="reduce")
        page.goto(f"{path.as_uri()}#{address}")
        yield ShownPage(page, troubles)
        assert troubles == []


def ours(
    renderer: SplattingRenderer,
    scene: Gaussians,
    yaw: float | int,
    pitch: float | int,
    *,
    size: int,
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> np.ndarray:
    """The picture of our renderer from the same camera, moved by ``offset``; [size, size, 3] in [0, 1]."""
    cameras = orbit(torch.tensor([math.radians(yaw)]), torch.tensor([math.radians(pitch)]))
    batch = scene.map(lambda tensor: tensor[None])
    batch = replace(batch, means=batch.means - torch.tensor(offset))
    image = render_views(renderer, batch, cameras, size=size, background=background)[0, 0]
    return image.clamp(0, 1).movedim(0, -1).numpy().astype(np.float64)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * math.log10(max(float(np.square(a - b).mean()), 1e-12))
