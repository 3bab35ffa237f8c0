"""The processes that compute password hashes for this API process (`hashing_process.py`).

They never need this process's interpreter lock, and the kernel prefers the event loop to them. A
process is started when a hash finds none idle, and stays.

A process computes one hash after another, and gets several questions ahead: on a busy machine it
would otherwise wait for a core after each answer, and do nothing for most of the time.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from typing import Final, Self, cast

import msgspec
import structlog

from microfin_api.http.problems import Problem

logger = structlog.get_logger(__name__)

_PYTHON: Final = sys.executable
_PROGRAM: Final = "microfin_api.people.hashing_process"
_LONGEST_SECONDS: Final = 20.0
"""How long a hash may take: shorter than a request, many times longer than any sensible cost."""

_PAUSE_SECONDS: Final = 1.0
"""How long nobody tries again after a process has failed twice, or could not be started."""

AHEAD: Final = 8
"""How many questions a process may have at the same time."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[int, str | bool]).decode


class HashingEnded(Exception):
    """The process ended before it answered."""


class Cost(msgspec.Struct, frozen=True):
    """What a hash costs: KiB of memory, passes over it, and lanes."""

    memory: int
    time: int
    lanes: int


class HashingProcess(asyncio.SubprocessProtocol):
    """One process, which computes one hash after another."""

    def __init__(self) -> None:
        self.ended = False
        self.exited = asyncio.Event()
        self._is_to_end = False
        self._transport: asyncio.SubprocessTransport
        self._input: asyncio.WriteTransport
        self._read = b""
        self._asked = 0
        self._open: deque[tuple[int, asyncio.Future[str | bool]]] = deque()  # the oldest first

    @classmethod
    async def start(cls, cost: Cost) -> Self:
        """Start one. Raises `OSError` if the system cannot."""
        _, process = await asyncio.get_running_loop().subprocess_exec(
            cls,
            *(_PYTHON, "-P", "-m", _PROGRAM),
            *map(str, (cost.memory, cost.time, cost.lanes)),
            stderr=None,  # ours: it says why it cannot start
            # It computes hashes of what it reads: it needs none of our secrets.
            env={it: value for it, value in os.environ.items() if not it.startswith("MICROFIN_")},
        )
        return process

    @property
    def load(self) -> int:
        """How many questions it has not answered."""
        return len(self._open)

    @property
    def process_id(self) -> int:
        """The system's number of the process."""
        return self._transport.get_pid()

    async def ask(self, stored: str | None, texts: tuple[str, ...]) -> str | bool:
        """Return the answer to one question. Raises `HashingEnded`; `TimeoutError` after 20 s.

        After 20 s the process is ended: it may never answer, also not those who wait behind.
        """
        if self.ended:
            raise HashingEnded
        self._asked += 1
        answer: asyncio.Future[str | bool] = asyncio.get_running_loop().create_future()
        self._input.write(_encode((self._asked, stored, texts)) + b"\n")
        self._open.append((self._asked, answer))
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                return await answer
        except TimeoutError:
            self.end()
            raise

    def end(self) -> None:
        """Kill the process; `exited` is set when it is gone."""
        if not self._is_to_end and not self.exited.is_set():
            with contextlib.suppress(ProcessLookupError):
                self._transport.kill()
        self._is_to_end = True
        self._give_up()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the process, and the pipe to it."""
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self._input = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 - only stdout is a pipe
        """Hand over each answer once its line is complete."""
        *lines, self._read = (self._read + data).split(b"\n")
        for line in lines:
            if not self._hand_over(line):
                logger.error("a process that computes password hashes gave an answer to nothing")
                self.end()
                return

    def _hand_over(self, line: bytes) -> bool:
        """Give the oldest question its answer; return False if this is no answer to it."""
        try:
            number, answer = _decode(line)
        except msgspec.DecodeError:
            return False
        if not self._open or self._open[0][0] != number:
            return False
        _, asked = self._open.popleft()
        if not asked.done():  # who asked may have gone away
            asked.set_result(answer)
        return True

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Give up the questions under way: the process is ending."""
        self._give_up()

    def process_exited(self) -> None:
        """Say that the process is gone, unless it was to end."""
        self.exited.set()
        self._give_up()
        self._input.close()
        if not self._is_to_end:
            code = self._transport.get_returncode() or 0
            how = {"signal": signal.Signals(-code).name} if code < 0 else {"exit_code": code}
            logger.warning("a process that computes password hashes ended", **how)

    def _give_up(self) -> None:
        self.ended = True
        while self._open:
            _, asked = self._open.popleft()
            if not asked.done():
                asked.set_exception(HashingEnded())


class HashingProcesses:
    """Hashes computed at one cost in `most` processes, of which all but the first start if need be.

    The caller limits how many hashes are under way: to `AHEAD` for each process.
    """

    def __init__(self, cost: Cost, most: int) -> None:
        self._cost = cost
        self._most = most
        self._all: list[HashingProcess] = []
        self._choosing = asyncio.Lock()
        self._trying_again = asyncio.Lock()
        self._spare: HashingProcess | None = None  # it computes one hash again, and no other
        self._closed = False
        self._try_again_at = 0.0

    @property
    def fault(self) -> str:
        """Say why no hash is computed at this moment; empty if nothing is known to be wrong."""
        if asyncio.get_running_loop().time() >= self._try_again_at:
            return ""
        return "the processes that compute password hashes fail"

    async def start(self) -> None:
        """Start the first one now, and not at the first hash."""
        with contextlib.suppress(Problem):  # it has been logged; the next hash tries again
            await self._choose()

    async def compute(self, stored: str | None, texts: tuple[str, ...]) -> str | bool:
        """Return whether one of the texts fits `stored`, or without it the first one's hash.

        If the process ends meanwhile, another one computes it again, once. Raises `Problem`.
        """
        process = await self._choose()
        try:
            return await process.ask(stored, texts)
        except HashingEnded:
            return await self._compute_again(stored, texts)
        except TimeoutError:
            raise _too_late() from None

    async def close(self) -> None:
        """End the processes, and wait until they are gone."""
        self._closed = True
        for process in self._all:
            process.end()
        await asyncio.gather(*(process.exited.wait() for process in self._all))

    async def _choose(self) -> HashingProcess:
        """Return the process with the fewest questions; a new one if all have some."""
        async with self._choosing:
            able = [it for it in self._all if not it.ended and it is not self._spare]
            least = min(able, key=lambda it: it.load, default=None)
            if least is not None and (least.load == 0 or len(able) >= self._most):
                return least
            return await self._start()

    async def _compute_again(self, stored: str | None, texts: tuple[str, ...]) -> str | bool:
        """Compute in a new process, which has no other question: one of them may be to blame.

        Whatever ended the first process may have ended the idle ones too, unseen as yet.
        """
        async with self._trying_again:
            self._spare = process = await self._start()
            try:
                return await process.ask(stored, texts)
            except HashingEnded:
                self._pause("two processes ended over one hash")
                raise _failed() from None
            except TimeoutError:
                raise _too_late() from None
            finally:
                self._spare = None
                if sum(not it.ended for it in self._all) > self._most:
                    process.end()

    async def _start(self) -> HashingProcess:
        if self._closed or self.fault:
            raise _failed()
        try:
            process = await HashingProcess.start(self._cost)
        except OSError as error:
            self._pause(repr(error))
            raise _failed() from None
        self._all = [*(it for it in self._all if not it.exited.is_set()), process]
        return process

    def _pause(self, why: str) -> None:
        self._try_again_at = asyncio.get_running_loop().time() + _PAUSE_SECONDS
        logger.error("password hashes cannot be computed: nobody can sign in or up", error=why)


def _failed() -> Problem:
    return Problem("unavailable", "Passwords cannot be verified at this moment.")


def _too_late() -> Problem:
    logger.error("a password hash took too long", seconds=_LONGEST_SECONDS)
    return _failed()
