"""The plot of a run: answers per second and latency over time, as an SVG without a library."""

from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree

from microfin_loadtest.summary import Slot

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT = 70, 20
_TOPS: Final = (50, 245)
_PANEL: Final = 130
TICKS: Final = 4

Line = tuple[str, str, list[float]]


def empty_picture(width: int, height: int, left: int, title: str) -> ElementTree.Element:
    """Return a white picture of this size, with its title beginning at `left`."""
    picture = ElementTree.Element(
        "svg",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=str(width),
        height=str(height),
        attrib={"font-family": "sans-serif", "font-size": "12"},
    )
    ElementTree.SubElement(picture, "rect", width="100%", height="100%", fill="white")
    text(picture, left, 20, title, size=15)
    return picture


def draw(title: str, seconds: float, slots: Sequence[Slot]) -> str:
    """Return an SVG document with the run's throughput above and its latency below."""
    slot_seconds = seconds / len(slots)
    picture = empty_picture(_WIDTH, _HEIGHT, _LEFT, title)
    throughput = [slot.answers / slot_seconds for slot in slots]
    _panel(picture, _TOPS[0], "answers/s", seconds, [("answers/s", "#1f6f8b", throughput)])
    _panel(
        picture,
        _TOPS[1],
        "latency, ms",
        seconds,
        [
            ("p50", "#2a9d4a", [slot.p50 for slot in slots]),
            ("p95", "#d98e04", [slot.p95 for slot in slots]),
            ("p99", "#b3261e", [slot.p99 for slot in slots]),
        ],
    )
    return ElementTree.tostring(picture, encoding="unicode", xml_declaration=True)


def _panel(
    picture: ElementTree.Element, top: int, name: str, seconds: float, lines: Sequence[Line]
) -> None:
    width, bottom = _WIDTH - _LEFT - _RIGHT, top + _PANEL
    highest = round_up(max(max(values) for _, _, values in lines))
    text(picture, _LEFT, top - 8, name)
    for tick in range(TICKS + 1):
        y = bottom - _PANEL * tick / TICKS
        x = _LEFT + width * tick / TICKS
        ElementTree.SubElement(
            picture,
            "line",
            x1=str(_LEFT),
            x2=str(_LEFT + width),
            y1=f"{y:.1f}",
            y2=f"{y:.1f}",
            stroke="#dddddd",
        )
        text(picture, _LEFT - 8, y + 4, f"{highest * tick / TICKS:g}", anchor="end")
        text(picture, x, bottom + 16, f"{seconds * tick / TICKS:g} s", anchor="middle")
    for number, (label, colour, values) in enumerate(lines):
        step = width / len(values)
        points = " ".join(
            f"{_LEFT + step * (place + 0.5):.1f},{bottom - _PANEL * value / highest:.1f}"
            for place, value in enumerate(values)
        )
        ElementTree.SubElement(
            picture,
            "polyline",
            points=points,
            fill="none",
            stroke=colour,
            attrib={"stroke-width": "1.5"},
        )
        if len(lines) > 1:
            text(picture, _WIDTH - _RIGHT - 40 * (len(lines) - number), top - 8, label, colour)


def text(
    picture: ElementTree.Element,
    x: float,
    y: float,
    words: str,
    colour: str = "#222222",
    anchor: str = "start",
    size: int = 12,
) -> None:
    """Add a text to the picture."""
    element = ElementTree.SubElement(
        picture,
        "text",
        x=f"{x:.1f}",
        y=f"{y:.1f}",
        fill=colour,
        attrib={"text-anchor": anchor, "font-size": str(size)},
    )
    element.text = words


def round_up(value: float) -> float:
    """Return the next 1, 2, 4 or 8 times a power of ten, for an axis that reads well."""
    unit = 1.0
    while unit * 10 < value:
        unit *= 10
    return next((unit * step for step in (1, 2, 4, 8, 10) if unit * step >= value), unit * 10)
