"""The objects of a kind as they are now, from the API server by way of kubectl."""

import asyncio
import contextlib
import json
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, Final

_LONGEST_EVENT: Final = 2**24  # bytes
_PAUSE_SECONDS: Final = 1.0


class Watch:
    """Maintains `items`; calls `changed` after every change. `complete` once all are known."""

    def __init__(self, path: str, changed: Callable[[], None]) -> None:
        self._path = path
        self._changed = changed
        self._items: dict[str, dict[str, Any]] = {}
        self.complete = False

    @property
    def items(self) -> Collection[dict[str, Any]]:
        """The objects that exist."""
        return self._items.values()

    async def run(self) -> None:
        """List and watch for ever, again from the beginning when the API server ends a watch."""
        while True:
            version = await self._list()
            if version is not None:
                await self._follow(version)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _list(self) -> str | None:
        async with _kubectl(self._path) as process:
            printed, _ = await process.communicate()
        if process.returncode != 0:
            return None
        listed = json.loads(printed)
        self._items = {it["metadata"]["uid"]: it for it in listed["items"]}
        self.complete = True
        self._changed()
        return str(listed["metadata"]["resourceVersion"])

    async def _follow(self, version: str) -> None:
        async with _kubectl(f"{self._path}?watch=1&resourceVersion={version}") as process:
            assert process.stdout is not None
            async for line in process.stdout:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                uid = event["object"]["metadata"]["uid"]
                if event["type"] == "DELETED":
                    self._items.pop(uid, None)
                else:
                    self._items[uid] = event["object"]
                self._changed()


@contextlib.asynccontextmanager
async def _kubectl(path: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *("kubectl", "get", "--raw", path), stdout=PIPE, limit=_LONGEST_EVENT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
