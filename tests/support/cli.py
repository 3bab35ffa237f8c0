"""The command `microfin`, run as a shell runs it."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from typing import Any


class Ran:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, output: str, errors: str) -> None:
        self.code = code
        self.output = output
        self.errors = errors

    def json(self) -> Any:
        """Return what the command printed because of `--json`."""
        return json.loads(self.output)


async def microfin(environment: Mapping[str, str], *arguments: str, typed: str = "") -> Ran:
    """Run `microfin` with these settings and no other; `typed` is its standard input."""
    others = {name: text for name, text in os.environ.items() if not name.startswith("MICROFIN_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "microfin_tools", *arguments),
        env={**others, **environment},
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    output, errors = await process.communicate(typed.encode())
    assert process.returncode is not None
    ran = Ran(process.returncode, output.decode(), errors.decode())
    assert "Traceback" not in ran.errors, ran.errors
    return ran
