"""Draw what a terminal shows as SVG: text with ANSI colours in, a picture out."""

from __future__ import annotations

import re
from html import escape, unescape

_WIDTH, _HEIGHT = 7.8, 18
"""Of one character, in pixels: those of a 13 px monospaced font."""
_PAGE, _TEXT = "#1e1e2e", "#cdd6f4"
_COLORS = {31: "#f38ba8", 32: "#a6e3a1", 33: "#f9e2af", 34: "#89b4fa", 35: "#cba6f7", 36: "#94e2d5", 37: "#ffffff"}
_CODE = re.compile(r"\x1b\[([\d;]*)m")


def svg(title: str, lines: list[str]) -> str:
    """Return the picture of a terminal with a prompt line `title` and `lines` below it."""
    rows = [title, *lines]
    columns = max(80, *(len(_CODE.sub("", row)) for row in rows))
    width, height = round(columns * _WIDTH + 32), len(rows) * _HEIGHT + 56
    dots = "".join(
        f'<circle cx="{20 + 18 * n}" cy="18" r="6" fill="{color}"/>'
        for n, color in enumerate(("#f38ba8", "#f9e2af", "#a6e3a1"))
    )
    texts = "\n".join(
        f'<text x="16" y="{54 + n * _HEIGHT}" xml:space="preserve">{_spans(row)}</text>' for n, row in enumerate(rows)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title, quote=True)}">\n'
        f'<rect width="{width}" height="{height}" rx="8" fill="{_PAGE}"/>{dots}\n'
        f'<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="13" '
        f'fill="{_TEXT}">\n{texts}\n</g>\n</svg>\n'
    )


def _spans(row: str) -> str:
    """Return one line of the terminal as text spans; bold, faint and the eight colours are kept."""
    result, color, bold, faint = [], "", False, False
    for n, part in enumerate(_CODE.split(row)):
        if n % 2:
            for code in [int(each or 0) for each in part.split(";")]:
                if code == 0:
                    color, bold, faint = "", False, False
                bold, faint = bold or code == 1, faint or code == 2
                base = code - 60 if code >= 90 else code
                color = _COLORS.get(base, color) if base != 39 else ""
        elif part:
            style = f' fill="{color}"' if color else ""
            style += ' font-weight="bold"' if bold else ""
            style += ' opacity="0.6"' if faint else ""
            text = escape(part, quote=False)
            result.append(f"<tspan{style}>{text}</tspan>" if style else text)
    return "".join(result)


def text_of(picture: str) -> list[str]:
    """Return the lines of text that a picture shows."""
    rows = re.findall(r"<text [^>]*>(.*)</text>", picture)
    return [unescape(re.sub(r"<[^>]+>", "", row)) for row in rows]
