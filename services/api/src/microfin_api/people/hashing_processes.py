"""The processes that compute password hashes for this API process (`hashing_process.py`).

They never need this process's interpreter lock, and the kernel prefers the event loop to them. A
process is started when a hash finds none idle, and stays. The one that was busy last gets the next
hash, so those that only a crowd needed cost nothing but memory.
"""

import asyncio
import contextlib
import os
import signal
import sys
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

_TRIES: Final = 2

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
    """One process, which computes one hash at a time."""

    def __init__(self) -> None:
        self.ended = False
        self.exited = asyncio.Event()
        self._is_to_end = False
        self._transport: asyncio.SubprocessTransport
        self._input: asyncio.WriteTransport
        self._read = b""
        self._asked = 0
        self._answer: asyncio.Future[str | bool] | None = None

    @classmethod
    async def start(cls, cost: Cost) -> Self:
        """Start one. Raises `OSError` if the system cannot."""
        _, process = await asyncio.get_running_loop().subprocess_exec(
            cls,
            *(_PYTHON, "-P", "-m", _PROGRAM),
            *map(str, (cost.memory, cost.time, cost.lanes)),
            stderr=None,  # ours: it says why it cannot start
            # It computes hashes of what it is told: it needs none of our secrets.
            env={it: value for it, value in os.environ.items() if not it.startswith("MICROFIN_")},
        )
        return process

    @property
    def process_id(self) -> int:
        """The system's number of the process."""
        return self._transport.get_pid()

    async def ask(self, stored: str | None, texts: tuple[str, ...]) -> str | bool:
        """Return the answer to one question. Raises `HashingEnded`; `TimeoutError` after 20 s.

        Unless it returns, the process has ended or is ended: its answer could come later, and must
        not be taken for that to another question.
        """
        if self.ended:
            raise HashingEnded
        self._asked += 1
        self._answer = asyncio.get_running_loop().create_future()
        self._input.write(_encode((self._asked, stored, texts)) + b"\n")
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                return await self._answer
        except HashingEnded:
            raise
        except BaseException:
            self.end()
            raise
        finally:
            self._answer = None

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
        """Hand over the answer once its line is complete."""
        self._read += data
        if not self._read.endswith(b"\n"):
            return
        line, self._read = self._read, b""
        with contextlib.suppress(msgspec.DecodeError):
            number, answer = _decode(line)
            if self._answer is not None and number == self._asked and not self._answer.done():
                self._answer.set_result(answer)
                return
        logger.error("a process that computes password hashes gave an answer to nothing")
        self.end()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Give up the question under way: the process is ending."""
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
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(HashingEnded())


class HashingProcesses:
    """Hashes computed at one cost, each in the first idle process; others start if need be.

    The caller limits how many there are: there are never more than hashes at the same time.
    """

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        self._idle: list[HashingProcess] = []
        self._all: list[HashingProcess] = []
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
        try:
            self._idle.append(await self._start())
        except Problem:
            return  # it has been logged; the next hash tries again

    async def compute(self, stored: str | None, texts: tuple[str, ...]) -> str | bool:
        """Return whether one of the texts fits `stored`, or without it the first one's hash.

        If the process ends meanwhile, another one computes it again, once. Raises `Problem`.
        """
        for number in range(_TRIES):
            # Whatever ended the first one may have ended the idle ones too, unseen as yet.
            process = await (self._start() if number else self._take())
            try:
                answer = await process.ask(stored, texts)
            except HashingEnded:
                continue
            except TimeoutError:
                logger.error("a password hash took too long", seconds=_LONGEST_SECONDS)
                raise _failed() from None
            self._idle.append(process)
            return answer
        self._pause(f"{_TRIES} processes ended over one hash")
        raise _failed()

    async def close(self) -> None:
        """End the processes, and wait until they are gone."""
        self._closed = True
        for process in self._all:
            process.end()
        await asyncio.gather(*(process.exited.wait() for process in self._all))

    async def _take(self) -> HashingProcess:
        while self._idle:
            if not (process := self._idle.pop()).ended:
                return process
        return await self._start()

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
