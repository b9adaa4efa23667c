"""Self-contained HTML pages: everything is embedded, nothing is fetched, no script runs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from cgsgan.export.atomic import atomic_path

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1160px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; margin-bottom: 0; } h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 13px; } td, th { padding: 2px 12px 2px 0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } th { font-weight: 600; white-space: nowrap; }
.wide { overflow-x: auto; } img { max-width: 100%; height: auto; } figure { margin: 1em 0; }
figcaption { color: #666; font-size: 13px; }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto; font-size: 13px; }
.event { color: #a33; }
"""


def save_page(path: Path, title: str, sections: Sequence[tuple[str, str]]) -> None:
    """Write a page.

    Args:
        path: the .html file.
        title: plain text.
        sections: heading (none when empty) and HTML; those without content are left out.
    """
    body = "\n".join(f"{f'<h2>{name}</h2>' if name else ''}\n{content}" for name, content in sections if content)
    name = escape(title)
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n<h1>{name}</h1>\n{body}\n</body></html>\n"
    )
    with atomic_path(path) as partial:
        partial.write_text(page, encoding="utf-8")


def html_table(lines: Sequence[Sequence[str]]) -> str:
    """Rows of ready cells (``<td>...</td>``)."""
    return "<table>" + "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in lines) + "</table>"


def html_image(content: bytes, kind: str, caption: str) -> str:
    """A picture with its caption; ``kind`` is the file format."""
    data = base64.b64encode(content).decode()
    text = escape(caption)
    return f'<figure><img src="data:image/{kind};base64,{data}" alt="{text}"><figcaption>{text}</figcaption></figure>'
