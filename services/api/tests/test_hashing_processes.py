"""Password hashes are computed beside the API process, and whatever ends there, nobody notices."""

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from microfin.process.settings import ApiSettings
from microfin_api.http.problems import Problem
from microfin_api.people import hashing_processes
from microfin_api.people.hashing_capacity import hashes_at_once
from microfin_api.people.hashing_processes import AHEAD, HashingProcess
from microfin_api.people.passwords import Passwords
from support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

RIGHT = "correct horse"
MIB = 1024


def settings(**others: Any) -> ApiSettings:
    return ApiSettings(
        **{"argon2_memory": 8, "argon2_time": 1, "argon2_concurrency": 1, **others},
        secret="",
        databases="",
    )


@contextlib.asynccontextmanager
async def hashing(**others: Any) -> AsyncIterator[Passwords]:
    passwords = Passwords(settings(**others))
    _OF_OTHER_TESTS.update(children())
    await passwords.start()
    try:
        yield passwords
    finally:
        await passwords.close()


_OF_OTHER_TESTS: set[int] = set()
"""Children that an API in this process has already: the fixture's."""


def children() -> list[int]:
    """Return the ids of this process's children that compute hashes."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"hashing_process" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return [it for it in found if it not in _OF_OTHER_TESTS]


def about(process: int, what: str) -> str:
    return Path(f"/proc/{process}/{what}").read_bytes().decode()


def used(process: int) -> float:
    """Return the seconds of CPU that a process has used."""
    fields = about(process, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_there(process: int) -> bool:
    try:
        return about(process, "stat").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def test_hashing_costs_the_api_process_nothing() -> None:
    async with hashing(argon2_memory=64 * MIB, argon2_time=3) as passwords:
        before = used(os.getpid())
        stored = await passwords.hash(RIGHT)
        assert await passwords.verify(stored, RIGHT)
        ours = used(os.getpid()) - before
        assert ours < used(children()[0]) / 2


async def test_every_answer_is_right() -> None:
    async with hashing(argon2_concurrency=3) as passwords:
        stored = await passwords.hash(RIGHT)
        assert not passwords.is_outdated(stored)
        answers = await asyncio.gather(
            *(passwords.verify(stored, RIGHT if number % 3 else "wrong") for number in range(30)),
            passwords.verify(None, "nobody's password"),
            passwords.verify("no hash at all", RIGHT),
            passwords.verify("$argon2id$v=19$nonsense", RIGHT),
            passwords.verify(await passwords.hash('"\n\\ é\u2028'), '"\n\\ é\u2028'),
        )
        assert answers == [*(bool(number % 3) for number in range(30)), False, False, False, True]
        assert len(children()) == 3


@pytest.mark.parametrize("password", [RIGHT, "wrong"])
async def test_a_process_that_is_killed_over_a_hash_changes_no_answer(password: str) -> None:
    async with hashing() as passwords:
        stored = await passwords.hash(RIGHT)
        (first,) = children()
        os.kill(first, signal.SIGSTOP)
        asked = asyncio.create_task(passwords.verify(stored, password))
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        assert await asked is (password == RIGHT)
        assert first not in children()


async def test_every_hash_ahead_of_a_process_that_is_killed_gets_its_answer() -> None:
    async with hashing() as passwords:
        stored = await passwords.hash(RIGHT)
        (first,) = children()
        os.kill(first, signal.SIGSTOP)
        texts = [RIGHT if number % 2 else "wrong" for number in range(AHEAD)]
        asked = asyncio.gather(*(passwords.verify(stored, text) for text in texts))
        await until("it has all questions", lambda: passwords._processes._all[0].load == AHEAD)
        os.kill(first, signal.SIGKILL)
        assert await asked == [text == RIGHT for text in texts]
        await until("the process that is left", lambda: len(children()) == 1)
        assert first not in children()


async def test_a_process_that_computes_again_gets_no_other_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hash may end it too, or it is ended after its answer: others would end with it."""
    ask, asked = HashingProcess.ask, asyncio.Queue[HashingProcess]()
    go_on = asyncio.Event()

    async def ask_later(process: HashingProcess, *question: Any) -> str | bool:
        asked.put_nowait(process)
        await go_on.wait()
        return await ask(process, *question)

    async with hashing() as passwords:
        stored = await passwords.hash(RIGHT)
        (first,) = children()
        monkeypatch.setattr(HashingProcess, "ask", ask_later)
        verifying = asyncio.create_task(passwords.verify(stored, RIGHT))
        await asked.get()
        os.kill(first, signal.SIGKILL)
        await until("it is gone", lambda: passwords._processes._all[0].ended)
        go_on.set()
        go_on.clear()
        again = await asked.get()
        assert await passwords._processes._choose() is not again
        go_on.set()
        assert await verifying


async def test_processes_that_are_killed_while_they_are_idle_are_replaced() -> None:
    async with hashing(argon2_concurrency=3) as passwords:
        stored, *_ = await asyncio.gather(*(passwords.hash(RIGHT) for _ in range(3)))
        killed = children()
        assert len(killed) == 3
        for process in killed:
            os.kill(process, signal.SIGKILL)
        await until("they are gone", lambda: not children())
        assert await passwords.verify(stored, RIGHT)


async def test_who_goes_away_leaves_no_answer_to_the_next() -> None:
    async with hashing() as passwords:
        stored = await passwords.hash(RIGHT)
        for _ in range(5):
            gone = asyncio.create_task(passwords.verify(stored, RIGHT))
            await asyncio.sleep(0)
            wrong = asyncio.create_task(passwords.verify(stored, "wrong"))
            await asyncio.sleep(0)
            gone.cancel()
            assert not await wrong
        assert await passwords.verify(stored, RIGHT)
        assert len(children()) == 1


async def test_a_lack_of_memory_is_not_a_wrong_password() -> None:
    async with hashing(argon2_memory=256 * MIB) as passwords:
        stored = await passwords.hash(RIGHT)
        resource.prlimit(children()[0], resource.RLIMIT_AS, (128 << 20, 128 << 20))
        assert await passwords.verify(stored, RIGHT)


@pytest.mark.parametrize(
    ("name", "value"), [("_PROGRAM", "microfin_api.no_such_program"), ("_PYTHON", "/no/such/file")]
)
async def test_without_a_process_the_answer_is_503_until_there_is_one(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with monkeypatch.context() as broken, structlog.testing.capture_logs() as logged:
        broken.setattr(hashing_processes, name, value)
        async with hashing() as passwords:
            with pytest.raises(Problem) as refused:
                await passwords.hash(RIGHT)
            answer = refused.value.answer()
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert passwords.fault()
            assert [line for line in logged if line["log_level"] == "error"]
            assert RIGHT not in str(logged)
            broken.undo()
            await until("it is tried again", lambda: not passwords.fault())
            assert await passwords.verify(await passwords.hash(RIGHT), RIGHT)


async def test_the_processes_are_at_lower_priority_small_and_know_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MICROFIN_SECRET", "a secret that is none of its business")
    async with hashing() as passwords:
        await passwords.hash(RIGHT)
        (process,) = children()
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, process) == min(19, ours + 5)
        lines = about(process, "status").splitlines()
        resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
        assert resident < 20 * MIB
        assert "MICROFIN" not in about(process, "environ")
        assert RIGHT not in about(process, "cmdline")


async def test_signals_to_everybody_end_no_hash() -> None:
    async with hashing() as passwords:
        stored = await passwords.hash(RIGHT)
        (process,) = children()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(process, number)
            assert await passwords.verify(stored, RIGHT)
        assert children() == [process]


async def test_the_end_ends_the_processes() -> None:
    async with hashing(argon2_concurrency=2) as passwords:
        await asyncio.gather(passwords.hash(RIGHT), passwords.hash(RIGHT))
        assert len(children()) == 2
    assert not children()


_PARENT = """
import asyncio, os, signal, sys
import structlog, uvloop
from microfin.process.settings import ApiSettings
from microfin_api.people.passwords import Passwords

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main():
    passwords = Passwords(ApiSettings(argon2_memory=8, argon2_time=1, argon2_concurrency=2))
    stored, _ = await asyncio.gather(passwords.hash("one"), passwords.hash("two"))
    used_next = passwords._processes._all[0].process_id
    os.kill(used_next, signal.SIGSTOP)
    asked = asyncio.create_task(passwords.verify(stored, "one"))
    await asyncio.sleep(0)
    os.kill(used_next, signal.SIGKILL)
    print(await asked, await passwords.verify(stored, "two"), flush=True)
    await asyncio.gather(passwords.hash("one"), passwords.hash("two"))
    left = [it.process_id for it in passwords._processes._all if not it.ended]
    print(used_next, *left, flush=True)
    await asyncio.sleep(600)

uvloop.run(main())  # as an API process does; the other tests here run on asyncio's own loop
"""


async def test_no_process_outlives_the_api_process() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PARENT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"True False\n"
    killed, *processes = [int(it) for it in (await parent.stdout.readline()).split()]
    assert not Path(f"/proc/{killed}").exists()  # noqa: ASYNC240 - it is in memory
    assert len(processes) == 2
    assert all(map(is_there, processes))
    parent.kill()
    await parent.wait()
    await until("they end", lambda: not any(map(is_there, processes)))


@pytest.mark.parametrize(
    ("cores", "cpu", "memory", "expected"),
    [
        (1, "max 100000", "max", 1),
        (8, "max 100000", "max", 7),
        (8, "250000 100000", "max", 1),
        (8, "400000 100000", "max", 3),
        (8, "50000 100000", "max", 1),
        (64, "max 100000", str(512 << 20), 3),
        (64, "max 100000", str(64 << 20), 1),
        (8, None, None, 7),
    ],
)
def test_by_default_there_are_as_many_as_spare_cores(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    cores: int,
    cpu: str | None,
    memory: str | None,
    expected: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    group = tmp_path / "sys/fs/cgroup/system.slice"
    (group / "microfin.service").mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/microfin.service\n")
    for name, value in {"cpu.max": cpu, "memory.max": memory}.items():
        if value is not None:
            (group / name).write_text(value + "\n")
    usual = ApiSettings(argon2_memory=19_456)
    assert hashes_at_once(usual, tmp_path) == expected
    assert hashes_at_once(ApiSettings(argon2_concurrency=5), tmp_path) == 5


def test_the_number_follows_the_cores_that_this_process_may_use() -> None:
    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mine)})
        assert hashes_at_once(settings(argon2_concurrency=0)) == 1
    finally:
        os.sched_setaffinity(0, mine)
