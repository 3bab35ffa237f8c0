"""Waits until a process answers, and reports the one that does not."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from microfin_local.errors import PlatformError
from microfin_local.files import last_lines
from microfin_local.supervised import SupervisedProcess

_PAUSE_SECONDS = 0.05
# A process that was restarted this often during the wait will not become ready.
_GIVE_UP_RESTARTS = 4


async def wait_until(
    answers: Callable[[], Awaitable[bool]],
    processes: list[SupervisedProcess],
    what: str,
    seconds: float = 60,
) -> None:
    """Call `answers` until it returns True. Raises PlatformError with the logs' last lines.

    An OSError or TimeoutError of `answers` means not yet. Any other error is final: another program
    may answer on that port.
    """
    restarts = sum(process.restarts for process in processes)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if await asyncio.wait_for(answers(), timeout=5):
                return
        except (OSError, TimeoutError):
            pass
        except PlatformError:
            raise
        except Exception as error:
            raise PlatformError(f"{what} is not ready: {error!r}.\n{_tails(processes)}") from error
        if sum(process.restarts for process in processes) - restarts >= _GIVE_UP_RESTARTS:
            break
        await asyncio.sleep(_PAUSE_SECONDS)
    raise PlatformError(f"{what} is not ready.\n{_tails(processes)}")


def _tails(processes: list[SupervisedProcess]) -> str:
    return "\n".join(
        f"--- last lines of {process.log}\n{last_lines(process.log)}" for process in processes
    )


async def accepts_connections(port: int) -> bool:
    """Return True if a program listens on this loopback port. Raises OSError if not."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await writer.wait_closed()
    return True
