"""Makes a broker without an operator, the lab's, one of Strimzi's, and serves its KafkaUsers.

Runs until SIGTERM; prints `serving` when the broker is ready.
"""

import asyncio
import contextlib
import signal

from e2e.strimzi import broker
from e2e.strimzi.user_operator import UserOperator


async def _serve() -> None:
    await broker.configure()
    print("serving", flush=True)
    await UserOperator().run()


async def _main() -> None:
    running = asyncio.ensure_future(_serve())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


if __name__ == "__main__":
    asyncio.run(_main())
