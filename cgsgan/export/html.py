"""One self-contained page with one head or several, to be turned with the mouse; it opens from disk, without a network.

The viewer is our own, in ``splat_page/``: WebGL 2, sorted in a worker, the projection and blending of the rasterizer.
Its modules become one script. The page's Content-Security-Policy allows that script and its style by their hashes,
and forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from html import escape
from importlib import resources
from pathlib import Path

from cgsgan.export.atomic import atomic_path
from cgsgan.export.axes import check_axes
from cgsgan.export.page_pictures import draw_front, embed_picture, frame_scene
from cgsgan.export.page_splats import MOST_SPLATS, pack_splats, unpack_splats
from cgsgan.export.scene import DEFAULTS, ExportOptions, SplatFileError, believe, prepare_scene, read_bytes
from cgsgan.types import Gaussians

AXES = "opengl"
MODULES = ("splats.js", "camera.js", "renderer.js", "controls.js", "page.js")
"""In an order in which each finds what it imports above it."""
PARTS = ("splat.vert", "splat.frag", "resolve.vert", "resolve.frag", "sort_worker.js")
MOST_HEADS = 64
MOST_SPLATS_OF_PAGE = 4_000_000
POSTER_SIZE, THUMBNAIL_SIZE = 512, 160
_PAGE = re.compile(rb'<script type="application/json" id="page">(.*?)</script>', re.DOTALL)
_SPLATS = re.compile(rb'<script type="application/octet-stream" id="splats-(\d+)">([^<]*)</script>')
_ALL = (
    '<button type="button" data-head="all" aria-pressed="false"><span class="all"><svg viewBox="0 0 24 24">'
    '<path d="M5 5h5v5H5zM14 5h5v5h-5zM5 14h5v5H5zM14 14h5v5h-5z"/></svg></span>All</button>'
)


def save_splat_page(
    path: str | os.PathLike[str],
    heads: Sequence[tuple[str, Gaussians]],
    options: ExportOptions = DEFAULTS,
    *,
    title: str | None = None,
    background: str = "#ffffff",
) -> int:
    """Write a page, atomically; several heads have a strip of pictures to choose from, and can be seen side by side.

    Lost are at most 1/33,000,000 of the scene's extent in positions, 1/131,000 of their range in ln(standard
    deviation) and colour (below 0 becomes 0), 1/510 in opacity and 0.3 degrees of rotation.

    Args:
        path: the file; missing folders are created.
        heads: names, and scenes without a batch axis, RGB, in this library's world.
        options: pruning, and the dilation, which the page adds as the renderer does. A page is its own frame: axes
            None or ``opengl``.
        title: plain text; None: the file's name.
        background: what the picker starts with, like ``#ffffff``.

    Returns:
        The number of splats written.

    Raises:
        ValueError: for no head, or too many; too many splats; other axes; a background that is no such colour; or as
            :func:`cgsgan.export.scene.prepare_scene`.
    """
    path = Path(path)
    _check(path, heads, options, background)
    poster, meanings, texts, pictures = "", [], [], []
    dilation = options.extra_dilation
    for name, gaussians in heads:
        scene, _ = prepare_scene(gaussians, replace(options, extra_dilation=0.0), axes=AXES, writer="save_splat_page")
        framing = frame_scene(scene.means, generated=options.generated)
        meaning, text = pack_splats(scene)
        meanings.append({"name": name, **meaning, "dilation": dilation, "framing": asdict(framing)})
        texts.append(text)
        poster = poster or embed_picture(draw_front(scene, framing, dilation=dilation, size=POSTER_SIZE))
        if len(heads) > 1:
            pictures.append(embed_picture(draw_front(scene, framing, dilation=dilation, size=THUMBNAIL_SIZE)))
    strip = _strip([name for name, _ in heads], pictures)
    page = _assemble(title or path.stem, background, poster, strip, meanings, texts)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")  # the hashes are of these line ends
    return sum(int(str(meaning["count"])) for meaning in meanings)


def write_html(path: str | os.PathLike[str], gaussians: Gaussians, options: ExportOptions = DEFAULTS) -> int:
    """:func:`save_splat_page` of one scene, which is named as the file."""
    return save_splat_page(path, [(Path(path).stem, gaussians)], options)


def read_html(path: str | os.PathLike[str], *, axes: str = AXES) -> Gaussians:
    """The first head of a page that :func:`save_splat_page` wrote.

    Raises:
        SplatFileError: as :func:`read_splat_page`.
        OSError: when the file cannot be opened.
    """
    return read_splat_page(path, axes=axes)[0][1]


def read_splat_page(path: str | os.PathLike[str], *, axes: str = AXES) -> list[tuple[str, Gaussians]]:
    """All heads of a page that :func:`save_splat_page` wrote; nothing in it is run.

    Args:
        path: the file.
        axes: its frame.

    Returns:
        Names, and scenes on the CPU, float32, in this library's world, with the page's dilation in their scales.

    Raises:
        SplatFileError: another page, or a damaged one.
        OSError: when the file cannot be opened.
    """
    check_axes(axes)
    path = Path(path)
    data = read_bytes(path, smallest=64, kind="a page of splats")
    found = _PAGE.search(data)
    if found is None:
        raise SplatFileError(f"{path}: expected a page of splats that cgsgan wrote, this is something else")
    try:
        heads = json.loads(found[1])["heads"]
        names = [str(head["name"]) for head in heads]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        kind = type(error).__name__
        raise SplatFileError(f"{path}: expected a list of heads in the page, got a damaged one ({kind})") from None
    texts = {int(index): text for index, text in _SPLATS.findall(data)}
    if not 1 <= len(names) <= MOST_HEADS or sorted(texts) != list(range(len(names))):
        raise SplatFileError(
            f"{path}: expected the splats of 1 to {MOST_HEADS} heads, got {len(texts)} of {len(names)}"
        )
    return [
        (name, believe(path, unpack_splats(path, head, texts[index]), axes=axes))
        for index, (name, head) in enumerate(zip(names, heads))
    ]


def _check(path: Path, heads: Sequence[tuple[str, Gaussians]], options: ExportOptions, background: str) -> None:
    if options.axes not in (None, AXES):
        check_axes(options.axes)
        raise ValueError(f"{path}: a page shows heads upright whatever the axes; expected none, got {options.axes!r}")
    if not 1 <= len(heads) <= MOST_HEADS:
        raise ValueError(f"{path}: expected 1 to {MOST_HEADS} heads on a page, got {len(heads)}")
    if not 0 <= options.extra_dilation < float("inf"):
        raise ValueError(f"{path}: extra_dilation must be a length >= 0 in world units, got {options.extra_dilation}")
    if not re.fullmatch(r"#[0-9a-f]{6}", background):
        raise ValueError(f"{path}: expected a background like #ffffff, got {background!r}")
    counts = [gaussians.count for _, gaussians in heads]
    limits = ((max(counts), MOST_SPLATS, "a head"), (sum(counts), MOST_SPLATS_OF_PAGE, "all heads together"))
    for count, most, what in limits:
        if count > most:
            raise ValueError(
                f"{path}: {what} on a page may have {most:,} Gaussians, got {count:,}; take fewer heads or levels"
            )


def _read(name: str) -> str:
    return resources.files("cgsgan.export").joinpath("splat_page").joinpath(name).read_text(encoding="utf-8")


def join_modules() -> str:
    """The viewer's modules as one script: without their imports, and with nothing exported."""
    script = "\n".join(_read(name) for name in MODULES)
    script = re.sub(r'^import \{[^}]*\} from "\./\w+\.js";\n', "", script, flags=re.MULTILINE)
    return re.sub(r"^export (?=const |class |function |async function )", "", script, flags=re.MULTILINE)


def _strip(names: Sequence[str], pictures: Sequence[str]) -> str:
    """The row of buttons with which one of several heads is chosen."""
    if not pictures:
        return ""
    buttons = [
        f'<button type="button" data-head="{index}" aria-pressed="false" title="{escape(name)}">'
        f'<img src="{picture}" alt="">{escape(name)}</button>'
        for index, (name, picture) in enumerate(zip(names, pictures))
    ]
    return f'<nav aria-label="Heads">{_ALL}{"".join(buttons)}</nav>'


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _assemble(
    title: str, background: str, poster: str, strip: str, meanings: list[dict[str, object]], texts: list[str]
) -> str:
    style, script = _read("style.css"), join_modules()
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; worker-src blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    splats = "\n".join(
        f'<script type="application/octet-stream" id="splats-{index}">{text}</script>'
        for index, text in enumerate(texts)
    )
    values = {
        "title": escape(title),
        "policy": policy,
        "style": style,
        "poster": poster,
        "background": background,
        "strip": strip,
        "page": json.dumps({"heads": meanings}).replace("<", "\\u003c"),
        "splats": splats,
        "script": script,
        **{name: _read(name) for name in PARTS},
    }
    # One pass: what a title or a name holds is not looked at again.
    return re.sub(r"\{\{([\w.]+)\}\}", lambda match: values[match[1]], _read("page.html"))
