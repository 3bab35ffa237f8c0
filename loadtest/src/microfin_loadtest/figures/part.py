"""What a part is: figures, and how one turn of them is measured."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from microfin_loadtest.figures.checkout import Checkout
from microfin_loadtest.figures.goal import Figure, Measurement
from microfin_loadtest.figures.store import Notes

SIDES = ("before", "after")
WORKERS = 4
SIZES = (0, 3_000_000, 10_000_000, 30_000_000)
MONEY_RATE = 500
_WARM_UP_RATE, _WARM_UP_SECONDS = 50, 15


@dataclass(frozen=True)
class Settings:
    """Seconds of each run; iterations a second of the mix where the rate is given, and those at
    which the search begins; turns. For filled ledgers: their sizes, operations a second, and the
    outcomes of a volume of their pasts, by default as many as ever."""

    seconds: int
    rate: int
    first_rate: int
    turns: int
    sizes: tuple[int, ...] = SIZES
    money_rate: int = MONEY_RATE
    outcomes_per_volume: int | None = None


@dataclass(frozen=True)
class Turn:
    """One turn: whose figures, with which settings, notes of an interrupted turn, and progress."""

    checkout: Checkout
    settings: Settings
    notes: Notes
    k6: Path
    say: Callable[[str], None]

    def warm_up(self) -> None:
        """Load the new platform for a while: Java compiles, memory is taken, users are made."""
        seconds = min(_WARM_UP_SECONDS, self.settings.seconds)
        self.checkout.load("mix.js", min(_WARM_UP_RATE, self.settings.rate), seconds)


@dataclass(frozen=True)
class Part:
    """A part of the figures. One that repeats its runs itself has one turn, and one whose goals are
    of this commit alone leaves the one before out."""

    name: str
    about: str
    figures: tuple[Figure, ...]
    measure: Callable[[Turn], Measurement]
    repeats_itself: bool = False
    sides: tuple[str, ...] = SIDES
