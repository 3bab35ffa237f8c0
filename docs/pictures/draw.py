"""Draws the pictures of the documents: from NAME.txt to NAME-light.svg and NAME-dark.svg.

.venv/bin/python docs/pictures/draw.py

A line of the text is one of these; `#` begins a comment, a backslash at the end continues a line:

size WIDTH HEIGHT
title WORDS, describe WORDS            for people who do not see the picture
box NAME X Y WIDTH HEIGHT WORDS        `|` in the words begins a new line, in smaller type
stack NAME X Y WIDTH HEIGHT WORDS      the same, for what there are several of
arrow FROM TO, dashed FROM TO          an end is NAME.SIDE, or NAME.SIDE@N for a place on that side
text X Y WORDS [start|end]             centred at X, or beginning or ending there
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

FOLDER: Final = Path(__file__).parent

COLOURS: Final = {
    "light": {"ink": "#1f2328", "quiet": "#57606a", "line": "#57606a", "box": "#f6f8fa"},
    "dark": {"ink": "#e6edf3", "quiet": "#9da7b1", "line": "#9da7b1", "box": "#161b22"},
}
_LINE_HEIGHT: Final = 16.0
_STACKED: Final = 5.0

Box = tuple[float, float, float, float]


def draw(text: str, colours: dict[str, str]) -> str:
    """Return the picture that `text` describes."""
    boxes: dict[str, Box] = {}
    shapes: list[str] = []
    size = title = description = ""
    for kind, rest in _instructions(text):
        if kind == "size":
            width, height = rest.split()
            size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        elif kind == "title":
            title = escape(rest)
        elif kind == "describe":
            description = escape(rest)
        elif kind in ("box", "stack"):
            name, *numbers, words = rest.split(maxsplit=5)
            x, y, wide, high = map(float, numbers)
            boxes[name] = (x, y, wide, high)
            shapes += _box(boxes[name], words, colours, stacked=kind == "stack")
        elif kind in ("arrow", "dashed"):
            first, last = (_place(end, boxes) for end in rest.split())
            shapes.append(_arrow(first, last, colours, dashed=kind == "dashed"))
        elif kind == "text":
            shapes += _text(rest, colours)
        else:
            raise ValueError(f"{kind} is no instruction")
    frame = f'{size} role="img" font-family="system-ui, sans-serif" font-size="13"'
    marker = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"'
    head = f'<path d="M0 0 8 4 0 8z" fill="{colours["line"]}"/>'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" {frame}>',
            f"<title>{title}</title>",
            f"<desc>{description}</desc>",
            f'<defs><marker id="head" {marker}>{head}</marker></defs>',
            *shapes,
            "</svg>\n",
        )
    )


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    for line in text.replace("\\\n", "").splitlines():
        if line and not line.startswith("#"):
            kind, _, rest = line.partition(" ")
            yield kind, rest.strip()


def _box(box: Box, words: str, colours: dict[str, str], *, stacked: bool) -> Iterator[str]:
    x, y, wide, high = box
    for shift in (_STACKED, 0.0) if stacked else (0.0,):
        yield (
            f'<rect x="{x + shift:g}" y="{y + shift:g}" width="{wide:g}" height="{high:g}" rx="6"'
            f' fill="{colours["box"]}" stroke="{colours["line"]}"/>'
        )
    lines = words.split("|")
    begin = y + high / 2 - (len(lines) - 1) * _LINE_HEIGHT / 2 + 4.5
    for number, line in enumerate(lines):
        style = "" if number else ' font-weight="600"'
        colour = colours["quiet" if number else "ink"]
        yield _line(x + wide / 2, begin + number * _LINE_HEIGHT, line, f'fill="{colour}"{style}')


def _text(rest: str, colours: dict[str, str]) -> Iterator[str]:
    x, y, words = rest.split(maxsplit=2)
    anchor = words.rpartition(" ")[2]
    if anchor in ("start", "end"):
        words = words.rpartition(" ")[0]
    else:
        anchor = "middle"
    for number, line in enumerate(words.split("|")):
        style = f'fill="{colours["quiet"]}" font-size="12"'
        yield _line(float(x), float(y) + number * _LINE_HEIGHT, line, style, anchor)


def _line(x: float, y: float, words: str, style: str, anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" {style}>{escape(words)}</text>'


def _arrow(
    first: tuple[float, float], last: tuple[float, float], colours: dict[str, str], *, dashed: bool
) -> str:
    ends = "M{:g} {:g}L{:g} {:g}".format(*first, *last)
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="{ends}" stroke="{colours["line"]}"{dashes} marker-end="url(#head)"/>'


def _place(end: str, boxes: dict[str, Box]) -> tuple[float, float]:
    name, _, side = end.partition(".")
    side, _, along = side.partition("@")
    x, y, wide, high = boxes[name]
    if side in ("left", "right"):
        return (x if side == "left" else x + wide, float(along) if along else y + high / 2)
    return (float(along) if along else x + wide / 2, y if side == "top" else y + high)


def pictures() -> dict[Path, str]:
    """Return all pictures by their files."""
    return {
        source.with_name(f"{source.stem}-{name}.svg"): draw(source.read_text("utf-8"), colours)
        for source in sorted(FOLDER.glob("*.txt"))
        for name, colours in COLOURS.items()
    }


if __name__ == "__main__":
    for file, picture in pictures().items():
        file.write_text(picture, "utf-8")
