"""The parts, in the order in which they are measured. Another one is a module and a place here."""

from typing import Final

from microfin_loadtest.figures.part import Part
from microfin_loadtest.figures.parts.filled import FILLED
from microfin_loadtest.figures.parts.idle import IDLE
from microfin_loadtest.figures.parts.latency import LATENCY
from microfin_loadtest.figures.parts.mix import MIX
from microfin_loadtest.figures.parts.one import ONE
from microfin_loadtest.figures.parts.overload import OVERLOAD
from microfin_loadtest.figures.parts.sixteen import SIXTEEN
from microfin_loadtest.figures.parts.workers import WORKERS

PARTS: Final[tuple[Part, ...]] = (MIX, LATENCY, ONE, SIXTEEN, WORKERS, IDLE, OVERLOAD, FILLED)
