"""An event loop in virtual time whose processes are interleaved by a seed.

Every callback belongs to the simulated process in whose context it was registered. Within a process
callbacks run in asyncio's own order, as they do in a real one; which process goes next is drawn.
When no process can run, the clock jumps to the next timer. A killed process never runs again, not
even its `finally` blocks; a paused one collects callbacks and timers until it is resumed.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from random import Random
from typing import Any, Final

STARTS_AT: Final = 1_000.0
"""The monotonic clock when a simulation begins, in seconds."""

_TICK: Final = 1e-6  # seconds

_PROCESS: contextvars.ContextVar["Process"] = contextvars.ContextVar("process")


class Livelock(Exception):
    """The simulation needs more steps or time than any healthy one."""


class Process:
    """A simulated process: what runs in its context dies, pauses and resumes with it."""

    def __init__(self, loop: "VirtualLoop", name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.steps = 0
        self.traps: dict[int, Callable[[], None]] = {}
        self.ready: deque[Handle] = deque()
        self.at_death: list[Callable[[], None]] = []
        self.context = contextvars.copy_context()
        self.context.run(_PROCESS.set, self)
        self._loop = loop

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task of this process."""
        return self._loop.create_task(coroutine, context=self.context.copy())

    def do(self, callback: Callable[[], None]) -> None:
        """Call `callback` at once, in this process."""
        self.context.copy().run(callback)

    def kill(self) -> None:
        """End at once: nothing of this process runs any more."""
        if not self.alive:
            return
        self.alive = False
        self._loop.forget(self)
        self.ready.clear()
        for inform in self.at_death:
            inform()

    def pause(self) -> None:
        """Freeze until `resume`; timers that come due meanwhile wait."""
        if self.alive and not self.paused:
            self.paused = True
            self._loop.forget(self)

    def resume(self) -> None:
        """Go on where `pause` interrupted."""
        if self.alive and self.paused:
            self.paused = False
            if self.ready:
                self._loop.runnable.append(self)


def current_process() -> Process:
    """Return the process that runs now."""
    return _PROCESS.get()


class Handle:
    """A callback to be run once, unless cancelled; what asyncio knows as a handle."""

    __slots__ = ("_when", "args", "callback", "context", "gone", "process")

    def __init__(
        self,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context,
        when: float,
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.process: Process = context[_PROCESS]
        self.gone = False
        self._when = when

    def cancel(self) -> None:
        """Never run it."""
        self.gone = True

    def cancelled(self) -> bool:
        """Whether it will never run."""
        return self.gone

    def when(self) -> float:
        """Return when it is due."""
        return self._when


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. `random` draws which process goes next."""

    def __init__(self, random: Random, most_steps: int, ends_at: float) -> None:
        super().__init__()
        self._draw = random.random
        self._now = STARTS_AT
        self._timers: list[tuple[float, int, Handle]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._number = 0
        self._most_steps = most_steps
        self._ends_at = ends_at
        self.steps = 0
        self.runnable: list[Process] = []
        self.world = Process(self, "world")

    # What asyncio asks of a loop --------------------------------------------------------------

    def time(self) -> float:
        """Return the virtual monotonic clock."""
        return self._now

    def get_debug(self) -> bool:
        """Let asyncio not look for slow callbacks."""
        return False

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        """Run `callback` after what its process has to run already."""
        handle = Handle(callback, args, context or contextvars.copy_context(), self._now)
        self._enqueue(handle)
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        """Run `callback` in `delay` seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        """Run `callback` at `when`."""
        handle = Handle(callback, args, context or contextvars.copy_context(), when)
        self._number += 1
        heappush(self._timers, (when, self._number, handle))
        return handle

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        """Return a task, remembered so that it can be taken apart in the end."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Ignore what a garbage collector complains of: dead processes leave such things."""

    # Running ----------------------------------------------------------------------------------

    def later(self, delay: float, callback: Callable[..., Any], *args: Any) -> None:
        """Run `callback` in `delay` seconds, outside all processes."""
        self.call_at(self._now + delay, callback, *args, context=self.world.context)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` in the world's context to its end and return its result."""
        running = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            main = self.world.start(coroutine)
            while not main.done():
                self._step()
            return main.result()
        finally:
            asyncio._set_running_loop(running)

    def forget(self, process: Process) -> None:
        """Let `process` not run for now."""
        if process in self.runnable:
            self.runnable.remove(process)

    def take_apart(self) -> None:
        """End all that is still suspended. Its `finally` blocks run; tasks that they ask for never
        begin."""
        running = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            for task in self._tasks:  # it may grow meanwhile
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    self.world.context.copy().run(_end, task.get_coro())
        finally:
            asyncio._set_running_loop(running)
        self._tasks.clear()
        self._timers.clear()
        self.runnable.clear()
        self.close()

    def _enqueue(self, handle: Handle) -> None:
        process = handle.process
        if process.alive:
            if not process.ready and not process.paused:
                self.runnable.append(process)
            process.ready.append(handle)

    def _step(self) -> None:
        runnable = self.runnable
        if not runnable:
            self._advance()
            return
        count = len(runnable)
        index = int(self._draw() * count) if count > 1 else 0
        process = runnable[index]
        process.steps += 1
        if process.traps and process.steps in process.traps:
            process.traps.pop(process.steps)()
            return
        handle = process.ready.popleft()
        if not process.ready:
            runnable[index] = runnable[-1]
            runnable.pop()
        if not handle.gone:
            self.steps += 1
            if self.steps > self._most_steps:
                raise Livelock(f"after {self.steps} steps and {self._now - STARTS_AT:.0f} s")
            handle.context.run(handle.callback, *handle.args)

    def _advance(self) -> None:
        """Let the clock jump to the next timer."""
        timers = self._timers
        when = timers[0][0]
        if when > self._ends_at:
            raise Livelock(f"after {self.steps} steps and {self._now - STARTS_AT:.0f} s")
        self._now = max(self._now + _TICK, when)  # since no work is done in no time
        while timers and timers[0][0] <= self._now:
            handle = heappop(timers)[2]
            if not handle.gone:
                self._enqueue(handle)


class _Over(BaseException):
    """The simulation is over: ends a coroutine past all that catches errors."""


def _end(coroutine: Any) -> None:
    """End a coroutine, which may still await something in its `finally` blocks."""
    for _ in range(20):
        try:
            coroutine.throw(_Over())
        except (_Over, StopIteration, Exception):  # noqa: BLE001 - ended, whichever way
            return
