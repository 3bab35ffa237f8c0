"""The plot of a comparison: a group of bars for each load, one bar for each ledger."""

from collections.abc import Mapping
from typing import Any, Final
from xml.etree import ElementTree

from microfin_loadtest.plot import TICKS, empty_picture, round_up, text

_WIDTH, _HEIGHT = 760, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 60, 310
_COLOURS: Final = ("#1f6f8b", "#d98e04", "#2a9d4a", "#b3261e", "#6a4c93", "#555555")


def draw_bars(title: str, ledgers: Mapping[str, Mapping[str, Any]]) -> str:
    """Return an SVG document. `ledgers` are the result's: figures by ledger and load."""
    picture = empty_picture(_WIDTH, _HEIGHT, _LEFT, title)
    loads = list(next(iter(ledgers.values())))
    values = {
        name: [float(figures[load]["settled_per_second"]) for load in loads]
        for name, figures in ledgers.items()
    }
    highest = round_up(max(max(of_ledger) for of_ledger in values.values()))
    _grid(picture, highest)
    _draw_groups(picture, loads, values, highest)
    return ElementTree.tostring(picture, encoding="unicode", xml_declaration=True)


def _grid(picture: ElementTree.Element, highest: float) -> None:
    for tick in range(TICKS + 1):
        y = _BOTTOM - (_BOTTOM - _TOP) * tick / TICKS
        ElementTree.SubElement(
            picture,
            "line",
            x1=str(_LEFT),
            x2=str(_WIDTH - _RIGHT),
            y1=f"{y:.1f}",
            y2=f"{y:.1f}",
            stroke="#dddddd",
        )
        text(picture, _LEFT - 8, y + 4, f"{highest * tick / TICKS:g}", anchor="end")


def _draw_groups(
    picture: ElementTree.Element,
    loads: list[str],
    values: Mapping[str, list[float]],
    highest: float,
) -> None:
    group = (_WIDTH - _LEFT - _RIGHT) / len(loads)
    bar = group * 0.8 / len(values)
    for place, load in enumerate(loads):
        text(picture, _LEFT + group * (place + 0.5), _BOTTOM + 18, load, anchor="middle")
    text(
        picture, _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2, _BOTTOM + 38, "connections", anchor="middle"
    )
    for number, (name, of_ledger) in enumerate(values.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        text(picture, _LEFT + number * 160, 42, name, colour)
        for place, value in enumerate(of_ledger):
            height = (_BOTTOM - _TOP) * value / highest
            left = _LEFT + group * (place + 0.1) + bar * number
            ElementTree.SubElement(
                picture,
                "rect",
                x=f"{left:.1f}",
                y=f"{_BOTTOM - height:.1f}",
                width=f"{bar:.1f}",
                height=f"{height:.1f}",
                fill=colour,
            )
            middle = left + bar / 2
            text(picture, middle, _BOTTOM - height - 4, f"{value:.0f}", anchor="middle", size=10)
