"""Pictures of how figures change with the size of the ledger."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

from microfin_loadtest.plot import TICKS, empty_picture, round_up, text
from microfin_loadtest.trend_line import LARGEST, Fit, Size, fit

_WIDTH, _LEFT, _RIGHT = 760, 80, 50
_FIRST_TOP, _PANEL, _DISTANCE = 60, 120, 190
_COLOURS: Final = ("#1f6f8b", "#d98e04", "#2a9d4a")
_EMPTY_SHARE: Final = 0.08
"""The part of the width that belongs to the empty ledger, which a logarithm has no place for."""


@dataclass(frozen=True)
class Panel:
    """One picture: lines by the key of their values, and the goal."""

    name: str
    lines: Mapping[str, str]
    goal: float | None


def draw_trend(title: str, sizes: Sequence[Size], panels: Sequence[Panel]) -> str:
    """Return an SVG document: a panel below the other, the sizes on a logarithmic axis."""
    picture = empty_picture(_WIDTH, _FIRST_TOP + _DISTANCE * len(panels), _LEFT, title)
    filled = [it["operations"] for it in sizes if it["operations"]]
    axis = _Axis(math.floor(math.log10(min(filled, default=LARGEST / 10))))
    for number, panel in enumerate(panels):
        _Drawing(picture, axis, _FIRST_TOP + _DISTANCE * number, panel, sizes).draw()
    return ElementTree.tostring(picture, encoding="unicode", xml_declaration=True)


@dataclass(frozen=True)
class _Axis:
    first_decade: int

    def place(self, operations: float) -> float:
        """Return where this size is drawn; an empty ledger is at the left end."""
        if not operations:
            return _LEFT
        width = _WIDTH - _LEFT - _RIGHT
        decades = math.log10(LARGEST) - self.first_decade
        share = (math.log10(operations) - self.first_decade) / decades
        return _LEFT + width * (_EMPTY_SHARE + (1 - _EMPTY_SHARE) * share)


class _Drawing:
    """A panel with its scale, while it is drawn."""

    def __init__(
        self,
        picture: ElementTree.Element,
        axis: _Axis,
        top: int,
        panel: Panel,
        sizes: Sequence[Size],
    ) -> None:
        self.picture, self.axis, self.top, self.panel = picture, axis, top, panel
        self.points = {
            label: [(it["operations"], float(it[key])) for it in sizes if it.get(key) is not None]
            for label, key in panel.lines.items()
        }
        self.fits = {label: fit(sizes, key) for label, key in panel.lines.items()}
        ends = [it.at(LARGEST) for it in self.fits.values() if it is not None]
        values = [value for points in self.points.values() for _, value in points]
        self.highest = round_up(max([*values, *ends, panel.goal or 0, 1e-9]))

    def draw(self) -> None:
        """Draw scale, goal and lines."""
        self._scale()
        if self.panel.goal is not None:
            self._line(
                (_LEFT, self.panel.goal), (_WIDTH - _RIGHT, self.panel.goal), "#888888", "6 4"
            )
            text(
                self.picture,
                _WIDTH - _RIGHT,
                self._y(self.panel.goal) - 4,
                "goal",
                "#888888",
                "end",
                10,
            )
        for place, (label, points) in enumerate(self.points.items()):
            colour = _COLOURS[place % len(_COLOURS)]
            if len(self.points) > 1:
                text(self.picture, _LEFT + 260 + 130 * place, self.top - 8, label, colour)
            self._draw_points(points, self.fits[label], colour)

    def _draw_points(
        self, points: Sequence[tuple[int, float]], trend: Fit | None, colour: str
    ) -> None:
        for operations, value in points:
            ElementTree.SubElement(
                self.picture,
                "circle",
                cx=f"{self.axis.place(operations):.1f}",
                cy=f"{self._y(value):.1f}",
                r="3.5",
                fill=colour,
            )
        if trend is not None:
            first = min(operations for operations, _ in points if operations)
            self._line(
                (self.axis.place(first), trend.at(first)),
                (self.axis.place(LARGEST), trend.at(LARGEST)),
                colour,
                "2 3",
            )

    def _scale(self) -> None:
        text(self.picture, _LEFT, self.top - 8, self.panel.name)
        for tick in range(TICKS + 1):
            value = self.highest * tick / TICKS
            self._line((_LEFT, value), (_WIDTH - _RIGHT, value), "#dddddd")
            text(self.picture, _LEFT - 8, self._y(value) + 4, f"{value:g}", anchor="end")
        below = self.top + _PANEL + 16
        text(self.picture, _LEFT, below, "empty", anchor="middle")
        for decade in range(self.axis.first_decade, round(math.log10(LARGEST)) + 1):
            place = self.axis.place(10**decade)
            text(self.picture, place, below, f"{10**decade:,}", anchor="middle", size=10)

    def _line(
        self, begins: tuple[float, float], ends: tuple[float, float], colour: str, dashes: str = ""
    ) -> None:
        ElementTree.SubElement(
            self.picture,
            "line",
            x1=f"{begins[0]:.1f}",
            y1=f"{self._y(begins[1]):.1f}",
            x2=f"{ends[0]:.1f}",
            y2=f"{self._y(ends[1]):.1f}",
            stroke=colour,
            attrib={"stroke-dasharray": dashes} if dashes else {},
        )

    def _y(self, value: float) -> float:
        return self.top + _PANEL * (1 - max(value, 0.0) / self.highest)
