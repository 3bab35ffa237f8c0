import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from microfin_local import process_tree
from microfin_local.errors import PlatformError
from microfin_local.supervised import Program, SupervisedProcess, run_to_end
from microfin_local.wait import wait_until
from support.waiting import until_true

Start = Callable[..., Awaitable[SupervisedProcess]]

# A process with a child in a session of its own, as PostgreSQL's are.
_PARENT = """
import subprocess, sys, time
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(1000)
"""


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    started: list[SupervisedProcess] = []

    async def begin(*arguments: str, said: list[str] | None = None) -> SupervisedProcess:
        program = Program(name=f"try-{len(started)}", arguments=arguments, directory=tmp_path)
        say = print if said is None else said.append
        log = tmp_path / f"{program.name}.log"
        process = SupervisedProcess(program, log, say, lambda: None)
        started.append(process)
        await process.start()
        return process

    yield begin
    for process in started:
        await process.stop()


async def test_what_dies_is_started_again_and_it_is_said(start: Start) -> None:
    said: list[str] = []
    process = await start("sleep", "1000", said=said)
    first = process.process_id
    process.kill()
    await until_true(lambda: process.process_id not in (None, first))
    assert process.restarts == 1
    assert said[0].startswith("try-0 was ended by SIGKILL; starting it again at once")


async def test_what_keeps_dying_is_started_ever_more_slowly(start: Start) -> None:
    said: list[str] = []
    process = await start("false", said=said)
    await until_true(lambda: len(said) >= 3)
    assert "ended with exit code 1; starting it again at once" in said[0]
    assert "in 0.5 s" in said[1]
    assert "in 1.0 s" in said[2]
    await process.stop()
    assert process.state == "stopped"


async def test_what_is_stopped_stays_stopped_with_its_children(start: Start) -> None:
    process = await start(sys.executable, "-c", _PARENT)
    await until_true(lambda: process.log.read_text().endswith("\n"))
    child = int(process.log.read_text())
    parent = process.process_id
    assert parent is not None
    assert child in process_tree.descendants(parent)
    await process.stop()
    assert process_tree.start_time(parent) is None
    assert process_tree.start_time(child) is None
    assert process.restarts == 0


async def test_a_frozen_process_can_be_stopped(start: Start) -> None:
    process = await start("sleep", "1000")
    process.pause()
    await process.stop()
    assert process.process_id is None


async def test_pause_freezes_children_too(start: Start) -> None:
    process = await start(sys.executable, "-c", _PARENT)
    await until_true(lambda: process.log.read_text().endswith("\n"))
    child = int(process.log.read_text())
    state = Path(f"/proc/{child}/stat")
    process.pause()
    await until_true(lambda: state.read_text().split()[2] == "T")
    process.resume()
    await until_true(lambda: state.read_text().split()[2] == "S")


async def test_a_start_that_is_cancelled_can_still_be_stopped(tmp_path: Path) -> None:
    program = Program(name="try", arguments=("sleep", "1000"), directory=tmp_path)
    process = SupervisedProcess(program, tmp_path / "try.log", lambda _: None, lambda: None)
    starting = asyncio.create_task(process.start())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await process.stop()
    assert process.process_id is None
    assert process.state == "stopped"


async def test_what_runs_to_its_end_is_killed_if_we_are_cancelled(tmp_path: Path) -> None:
    log = tmp_path / "once.log"
    program = Program(
        name="once", arguments=("sh", "-c", "echo $$; exec sleep 1000"), directory=tmp_path
    )
    running = asyncio.create_task(run_to_end(program, log))
    await until_true(lambda: log.exists() and log.read_text())
    process_id = int(log.read_text())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await until_true(lambda: process_tree.start_time(process_id) is None)


def test_a_reused_process_id_is_not_mistaken_for_the_earlier_process() -> None:
    started = process_tree.start_time(os.getpid())
    assert started is not None
    assert process_tree.is_alive(os.getpid(), started)
    assert not process_tree.is_alive(os.getpid(), started - 1)


async def test_a_signal_goes_to_the_process_alone(start: Start) -> None:
    process = await start(sys.executable, "-c", _PARENT)
    await until_true(lambda: process.log.read_text().endswith("\n"))
    child = int(process.log.read_text())
    process.signal(signal.SIGTERM)
    await until_true(lambda: process.restarts == 1)
    assert process_tree.start_time(child) is not None
    os.kill(child, signal.SIGKILL)


async def test_what_has_just_gone_can_be_stopped(start: Start) -> None:
    """asyncio reaps it before it says so; the error of that moment once hid why it had gone."""
    process = await start("sleep", "1000")
    process_id = process.process_id
    assert process_id is not None
    os.kill(process_id, signal.SIGKILL)
    while process_tree.start_time(process_id) is not None:
        time.sleep(0.01)  # noqa: ASYNC251 - the loop must not hear of it
    process.signal(signal.SIGTERM)
    await process.stop()
    assert process.state == "stopped"


async def test_what_answers_wrongly_is_named_with_its_log(start: Start) -> None:
    process = await start("sh", "-c", "echo the cause; sleep 1000")
    await until_true(process.log.read_text)

    async def somebody_else() -> bool:
        raise ValueError("that is no answer of ours")

    with pytest.raises(PlatformError) as caught:
        await wait_until(somebody_else, [process], "try-0")
    for said in ("try-0 is not ready", "no answer of ours", str(process.log), "the cause"):
        assert said in str(caught.value)
