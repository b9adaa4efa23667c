"""A headless Chromium with WebGL2 in software, driven by Playwright, for tests of pages.

``launch`` and ``open_page`` are for scripts, the fixture ``chromium`` for tests. Without Playwright or Chromium
such tests are skipped with the reason; with CGSGAN_REQUIRE_BROWSER=1 they fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# SwiftShader draws WebGL2 on the CPU; the colour profile keeps sRGB values as they are; the rest keeps it off the net.
FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-domain-reliability",
]
LOCAL = (
    "file:",
    "data:",
    "blob:",
    "about:",
    "http://127.0.0.1",
    "http://localhost",
    "ws://127.0.0.1",
    "ws://localhost",
)


def find_chromium() -> str | None:
    """Path of the browser: CHROMIUM in the environment, or what is installed."""
    names = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def missing_browser() -> str | None:
    """What is missing to open pages, or None."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "needs playwright: pip install playwright"
    return None if find_chromium() else "needs Chromium: apt-get install chromium, or CHROMIUM=path"


@contextmanager
def launch() -> Iterator[Browser]:
    """A browser with an empty profile; ended on leaving."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS, timeout=120_000)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Browser, width: int, height: int, *, touch: bool = False) -> Iterator[tuple[Page, list[str]]]:
    """A new page of ``width`` x ``height`` CSS pixels, one device pixel each, that reaches this machine alone.

    Returns the page and a list that fills with its troubles: errors, error messages on its console, and addresses
    outside this machine that it asked for (which are refused).
    """
    context = browser.new_context(
        viewport={"width": width, "height": height}, device_scale_factor=1, has_touch=touch, color_scheme="light"
    )
    context.set_default_timeout(120_000)
    page, troubles = context.new_page(), []

    def guard(route) -> None:
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            troubles.append(f"asked for {route.request.url}")
            route.abort()

    context.route("**/*", guard)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    try:
        yield page, troubles
    finally:
        context.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    missing = missing_browser()
    if missing:
        if os.environ.get("CGSGAN_REQUIRE_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    with launch() as browser:
        yield browser
