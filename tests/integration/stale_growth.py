"""`microfin routing grow` whose broker knows only the beginning of the log (STALE_ENDS).

It answers ListOffsets as one does that has lost the lead without having heard of it.
"""

import os
import sys

import msgspec

from microfin_tools.cli import main
from microfin_tools.cli.topic import Topic

_STALE = msgspec.json.decode(os.environ["STALE_ENDS"], type=dict[int, int])


async def stale_ends(self: Topic) -> dict[int, int]:
    """Return the ends of before."""
    return dict(_STALE)


if __name__ == "__main__":
    Topic.ends = stale_ends  # type: ignore[method-assign]
    sys.exit(main())
