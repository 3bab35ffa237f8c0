"""`microfin routing grow`, killed at a named step on the first shard it comes to (FAULT_POINT)."""

import functools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from microfin_tools.cli import main
from microfin_tools.growth import PostgresRouting


def wrap(name: str) -> None:
    """Let a step pass by its two points."""
    step: Callable[..., Awaitable[Any]] = getattr(PostgresRouting, name)

    @functools.wraps(step)
    async def passing(*arguments: Any) -> Any:
        die(f"before {name}")
        result = await step(*arguments)
        die(f"after {name}")
        return result

    setattr(PostgresRouting, name, passing)


def die(point: str) -> None:
    if os.environ["FAULT_POINT"] == point:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    for name in ("prepare", "activate", "withdraw"):
        wrap(name)
    sys.exit(main())
