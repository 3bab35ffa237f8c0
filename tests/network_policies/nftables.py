"""The kernel's packet filter, by way of `nft`, which must run as root."""

import asyncio
import json
from asyncio.subprocess import PIPE
from typing import Any, Final

from network_policies.ruleset import REFUSED, TABLE

Refusal = tuple[str, str, str, int]
"""Source, destination, protocol and port of refused packets."""

_PROTOCOLS: Final = {6: "tcp", 17: "udp"}


async def load(rules: str) -> None:
    """Replace the rules, all at once. Raises OSError with nft's message."""
    await _nft("-f", "-", stdin=rules)


async def remove() -> None:
    """Remove everything that `load` made."""
    # Deleting a table that does not exist is an error.
    await _nft("-f", "-", stdin=f"add table {TABLE}\ndelete table {TABLE}\n")


async def refusals() -> set[Refusal]:
    """Return what was refused in the last two hours."""
    listed = json.loads(await _nft("-j", "list", "set", *TABLE.split(), REFUSED))
    found = next(it["set"] for it in listed["nftables"] if "set" in it)
    return {_refusal(it) for it in found.get("elem", ())}


def _refusal(element: Any) -> Refusal:
    source, destination, protocol, port = element["elem"]["val"]["concat"]
    return source, destination, _PROTOCOLS.get(protocol, str(protocol)), port


async def _nft(*arguments: str, stdin: str = "") -> str:
    process = await asyncio.create_subprocess_exec(
        "nft", *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    printed, errors = await process.communicate(stdin.encode())
    if process.returncode != 0:
        raise OSError(f"nft {' '.join(arguments)}: {errors.decode().strip()}\n{stdin}")
    return printed.decode()
