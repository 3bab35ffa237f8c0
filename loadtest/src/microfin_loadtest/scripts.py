"""The k6 scripts: their folder, and the rejections by a rule that each expects."""

from pathlib import Path
from typing import Final

from microfin_loadtest.errors import LoadImpossible

FOLDER: Final = Path(__file__).resolve().parents[2]

_NONE: Final[frozenset[str]] = frozenset()
#: Accounts that pay more often than others may be empty after many runs.
_FUNDS: Final = frozenset({"insufficient_funds"})

EXPECTED_REJECTIONS: Final[dict[str, frozenset[str]]] = {
    "mix.js": _NONE,
    "growth.js": _NONE,
    "money.js": _NONE,
    "read-heavy.js": _NONE,
    "hot-account.js": _FUNDS,
    "ping-pong.js": _FUNDS,
    "zipf.js": _FUNDS,
}


def find_script(name: str) -> Path:
    """Return the script's path. Raises LoadImpossible if no script has this name."""
    if name not in EXPECTED_REJECTIONS:
        known = ", ".join(EXPECTED_REJECTIONS)
        raise LoadImpossible(f"There is no script called {name}; there are: {known}.")
    return FOLDER / name
