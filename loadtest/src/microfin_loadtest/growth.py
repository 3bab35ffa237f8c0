"""Grows the platform during a run, as `make grow` does."""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


async def grow_later(
    state: Path, workers: int, after_seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Grow to `workers` partitions after some seconds; return exit code and duration."""
    await asyncio.sleep(after_seconds)
    say(f"growing to {workers} partitions")
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "microfin_local", "--state", str(state), "grow", "--workers", str(workers)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=2,
    )
    code = await process.wait()
    return {
        "workers": workers,
        "exit_code": code,
        "seconds": round(time.monotonic() - began, 2),
    }
