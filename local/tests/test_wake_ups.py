"""From events of the kernel's scheduler to the critical path of an operation."""

import pytest

from microfin_local.benchmarks.wake_ups.critical_path import (
    Switch,
    WakeUp,
    critical_path,
    operations_of,
    runs_of,
    wake_ups_of,
)
from microfin_local.benchmarks.wake_ups.trace import events_of, sync_seconds

IDLE, CLIENT, SERVER, STRANGER = 0, 1, 2, 9

# The client asks from 10 to 12; the server is woken at 12 and runs from 13. From 15 to 19 it waits
# for its disk, is interrupted from 20 to 21, and wakes the client at 22, which runs from 23.
OPERATION: list[WakeUp | Switch] = [
    Switch(1, IDLE, "R", CLIENT), Switch(2, CLIENT, "S", IDLE),
    Switch(3, IDLE, "R", SERVER), Switch(4, SERVER, "S", IDLE),
    WakeUp(9, IDLE, CLIENT), Switch(10, IDLE, "R", CLIENT),
    WakeUp(12, CLIENT, SERVER), Switch(12.5, CLIENT, "S", IDLE),
    Switch(13, IDLE, "R", SERVER), Switch(15, SERVER, "D", IDLE),
    WakeUp(19, IDLE, SERVER), Switch(19.5, IDLE, "R", SERVER),
    Switch(20, SERVER, "R+", STRANGER), Switch(21, STRANGER, "S", SERVER),
    WakeUp(22, SERVER, CLIENT), Switch(22.5, SERVER, "S", IDLE),
    Switch(23, IDLE, "R", CLIENT),
]  # fmt: skip


def test_the_parts_of_an_operation_add_up_to_the_whole() -> None:
    runs = runs_of(OPERATION)
    assert operations_of(runs[CLIENT], {SERVER}) == [(10, 23)]
    parts = critical_path(runs, {CLIENT, SERVER}, CLIENT, 10, 23)
    assert sum(part.seconds for part in parts) == 13
    assert [(part.thread, part.kind, part.seconds) for part in reversed(parts) if part.seconds] == [
        (CLIENT, "runs", 2), (SERVER, "scheduling", 1), (SERVER, "runs", 2), (SERVER, "disk", 4),
        (SERVER, "scheduling", 0.5), (SERVER, "runs", 0.5), (SERVER, "scheduling", 1),
        (SERVER, "runs", 1), (CLIENT, "scheduling", 1),
    ]  # fmt: skip


def test_what_a_timer_did_is_not_followed() -> None:
    parts = critical_path(runs_of(OPERATION), {CLIENT, SERVER}, CLIENT, 5, 23)
    assert sum(part.seconds for part in parts) == 18
    assert [(part.kind, part.seconds) for part in parts][-2:] == [("scheduling", 1), ("waits", 4)]


@pytest.mark.parametrize("lost", [8, 9, 13])
def test_an_operation_of_which_an_event_was_lost_is_left_out(lost: int) -> None:
    assert isinstance(OPERATION[lost], Switch)
    events = OPERATION[:lost] + OPERATION[lost + 1 :]
    runs = runs_of(events)
    assert critical_path(runs, {CLIENT, SERVER}, CLIENT, 10, 23) == []


def test_a_wake_up_counts_if_the_thread_had_slept() -> None:
    events = [*OPERATION, WakeUp(24, SERVER, CLIENT), Switch(25, CLIENT, "S", IDLE)]
    assert [wake_up.time for wake_up in wake_ups_of(runs_of(events))] == [9, 22, 12, 19]


@pytest.mark.parametrize("thread", ["nginx", "VM Periodic Tas"])
def test_what_perf_prints_is_read(thread: str) -> None:
    printed = f"""
     {thread}  6800 [000] 70048.146521123: sched:sched_waking: comm={thread} pid=18 prio=0 cpu=0
     {thread}  18 [001] 70048.2: sched:sched_switch: prev_comm={thread} prev_pid=18 prev_prio=120 \
prev_state=D ==> next_comm={thread} next_pid=99 next_prio=0
     {thread}  18 [001] 70048.3: syscalls:sys_enter_fdatasync: fd: 0x00000007
     {thread}  18 [001] 70048.5: syscalls:sys_exit_fdatasync: 0x0
"""
    events = list(events_of(printed))
    assert events[:2] == [WakeUp(70048.146521123, 6800, 18), Switch(70048.2, 18, "D", 99)]
    assert sync_seconds(events) == {18: pytest.approx(0.2)}
