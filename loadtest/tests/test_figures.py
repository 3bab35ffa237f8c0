"""The figures of two commits: the search, the table, and going on after an interruption."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.figures.checkout import Checkout, environment_of
from microfin_loadtest.figures.command import parts_of
from microfin_loadtest.figures.goal import Figure, Measurement, row, table
from microfin_loadtest.figures.part import Part, Settings, Turn
from microfin_loadtest.figures.parts import PARTS
from microfin_loadtest.figures.parts.mix import is_carried
from microfin_loadtest.figures.parts.one import across_partitions
from microfin_loadtest.figures.parts.overload import wrong_answers
from microfin_loadtest.figures.run import alone, measure_all, result_of
from microfin_loadtest.figures.search import Try, highest_rate, next_rate, rate_at
from microfin_loadtest.figures.store import Store
from microfin_local.platform import REPOSITORY

PAGE = """
export OTHER=1
export MICROFIN_ARGON2_MEMORY=1024 MICROFIN_ARGON2_TIME=2
export MICROFIN_SIGN_IN_ADDRESS_RATE=2000
make start WORKERS=4
"""
RATE = Figure("rate", "highest rate", "/s", 2.5, at_least=True, is_ratio=True)
MEMORY = Figure("memory", "memory", "MiB", 700)
SETTINGS = Settings(seconds=1, rate=1, first_rate=1, turns=2)


def search(first: int, carries: Callable[[int, int], bool]) -> list[Try]:
    """Search with a measure that says for a rate and the number of its try whether it carries."""
    tries: list[Try] = []
    while (rate := next_rate(tries, first)) is not None:
        number = sum(one.rate == rate for one in tries)
        tries.append(Try(rate, carries(rate, number)))
        assert len(tries) < 100
    return tries


def test_a_search_goes_up_by_a_tenth_and_confirms_the_highest_rate_twice() -> None:
    tries = search(100, lambda rate, _: rate <= 140)
    assert [one.rate for one in tries] == [100, 110, 121, 133, 146, 133, 133]
    assert highest_rate(tries, 100) == 133


def test_it_goes_down_where_the_first_rate_is_not_carried() -> None:
    tries = search(100, lambda rate, _: rate <= 85)
    assert [one.rate for one in tries] == [100, 91, 83, 83, 83]
    assert highest_rate(tries, 100) == 83


def test_a_rate_that_is_not_carried_again_is_not_the_highest() -> None:
    tries = search(100, lambda rate, number: rate <= 110 or (rate == 121 and number < 2))
    assert [one.rate for one in tries] == [100, 110, 121, 133, 121, 121, 110, 110]
    assert highest_rate(tries, 100) == 110


def test_a_search_of_what_carries_nothing_ends() -> None:
    with pytest.raises(LoadImpossible, match="Not even one"):
        search(100, lambda *_: False)


def test_low_rates_are_not_tried_twice_on_the_way_up() -> None:
    tries = search(1, lambda rate, _: rate <= 3)
    assert [one.rate for one in tries] == [1, 2, 3, 4, 3, 3]


@pytest.mark.parametrize("first", [1, 7, 100])
@pytest.mark.parametrize("limit", [1, 2, 8, 99, 100, 101, 250])
def test_the_highest_rate_is_the_last_step_that_is_carried(first: int, limit: int) -> None:
    steps = {rate_at(first, step) for step in range(-60, 70)}
    expected = max(rate for rate in steps if rate <= limit)
    assert highest_rate(search(first, lambda rate, _: rate <= limit), first) == expected


@pytest.mark.parametrize(
    ("change", "carried"),
    [
        ({}, True),
        ({"valid": False}, False),
        ({"dropped": 1}, False),
        ({"accepted": 1}, False),
        ({"answers": {"deposit": {"200": 9, "503": 1}}}, False),
    ],
)
def test_a_rate_is_carried_where_every_answer_is_final(
    change: dict[str, Any], carried: bool
) -> None:
    answers = {"deposit": {"200": 10}, "transfer": {"422": 1}}
    report = {"valid": True, "dropped": 0, "accepted": 0, "answers": answers, **change}
    assert is_carried(report) is carried


def test_a_row_has_medians_and_their_ratio() -> None:
    before = [{"rate": 100}, {"rate": 300}, {"rate": 101}]
    reached = row(RATE, before, [{"rate": 260}])
    assert (reached["before"], reached["after"], reached["ratio"]) == (101, 260, 2.574)
    assert reached["reached"] is True
    assert row(RATE, before, [{"rate": 250}])["reached"] is False
    assert row(RATE, [], [{"rate": 250}])["reached"] is None
    assert row(RATE, [{"rate": None}], [{"rate": 250}])["reached"] is None


def test_a_goal_without_a_ratio_is_of_this_commit_alone() -> None:
    assert row(MEMORY, [{"memory": 900}], [{"memory": 700}])["reached"] is True
    assert row(MEMORY, [], [{"memory": 701}])["reached"] is False


def test_the_table_says_goal_before_after_and_reached() -> None:
    rows = [
        row(RATE, [{"rate": 100}], [{"rate": 200}]),
        row(MEMORY, [], [{"memory": 650.5}]),
    ]
    assert table(rows).splitlines()[2:] == [
        "| highest rate | ≥ 2.5 times before | 100 /s | 200 /s | 2.00 | **no** |",
        "| memory | ≤ 700 MiB |  | 650.5 MiB |  | yes |",
    ]


def test_the_settings_of_a_commit_are_those_of_its_page() -> None:
    assert environment_of(PAGE) == {
        "MICROFIN_ARGON2_MEMORY": "1024",
        "MICROFIN_ARGON2_TIME": "2",
        "MICROFIN_SIGN_IN_ADDRESS_RATE": "2000",
    }
    with pytest.raises(LoadImpossible, match="ARGON2_MEMORY"):
        environment_of("export MICROFIN_ANSWER=accepted")


def test_this_commits_page_says_how_its_platform_is_started() -> None:
    page = (REPOSITORY / "docs/guide/load-testing.md").read_text()
    settings = environment_of(page)
    assert settings["MICROFIN_ARGON2_MEMORY"] == "1024"
    assert int(settings["MICROFIN_SIGN_IN_ADDRESS_RATE"]) > 0


def test_transfers_across_partitions_have_accounts_of_two() -> None:
    accounts = [{"number": str(number)} for number in range(100)]
    first, second = across_partitions(accounts, 4)
    assert first is accounts[0]
    assert across_partitions([second, first], 4) == [second, first]
    with pytest.raises(LoadImpossible, match="prepare more"):
        across_partitions([first, first], 4)


def test_an_overload_counts_what_was_neither_settled_nor_refused_well() -> None:
    phase = {
        "answers": {"200": 9, "503": 5, "500": 2, "202": 1},
        "unanswered": 4,
        "without_retry_after": 8,
    }
    assert wrong_answers(phase) == 15


def checkouts() -> dict[str, Checkout]:
    return {
        side: Checkout(side, Path("/nowhere"), Path("/nowhere"), Path("/nowhere"))
        for side in ("before", "after")
    }


def fake(name: str, log: list[str], fails_at: int = 0, *, repeats_itself: bool = False) -> Part:
    def measure(turn: Turn) -> Measurement:
        log.append(f"{name} {turn.checkout.commit}")
        if len(log) == fails_at:
            raise KeyboardInterrupt
        return {"rate": len(log), "reasons": ["dropped"] if turn.checkout.commit == "after" else []}

    return Part(name, "", (RATE,), measure, repeats_itself=repeats_itself)


def test_commits_take_turns_and_a_search_has_one(tmp_path: Path) -> None:
    log: list[str] = []
    parts = [fake("search", log, repeats_itself=True), fake("other", log)]
    store = Store(tmp_path / "file", {})
    measure_all(parts, checkouts(), SETTINGS, store, Path("k6"), lambda _: None)
    turns = ["other before", "other after"]
    assert log == ["search before", "search after", *turns, *turns]
    result = result_of(parts, store)
    assert [one["ratio"] for one in result["rows"]] == [2, 5 / 4]
    assert result["reasons"] == [
        "search, after: dropped",
        "other, after: dropped",
        "other, after: dropped",
    ]
    json.dumps(result)


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    log: list[str] = []
    file = tmp_path / "figures" / "file"
    with pytest.raises(KeyboardInterrupt):
        measure_all(
            [fake("it", log, fails_at=3)],
            checkouts(),
            SETTINGS,
            Store(file, {"after": "a"}),
            Path("k6"),
            lambda _: None,
        )
    said: list[str] = []
    store = Store(file, {"after": "a"})
    measure_all([fake("it", log)], checkouts(), SETTINGS, store, Path("k6"), said.append)
    assert log == ["it before", "it after", "it before", "it before", "it after"]
    assert said[0] == "[1/4] it, before, turn 1: known"
    assert [one["rate"] for one in store.measured("it", "before")] == [1, 4]


def test_notes_outlive_an_interruption_until_their_turn_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "file"
    Store(file, {}).notes("mix", "before").add({"rate": 100})
    store = Store(file, {})
    store.notes("mix", "before").add({"rate": 110})
    assert [one["rate"] for one in Store(file, {}).notes("mix", "before").all()] == [100, 110]
    assert store.notes("mix", "after").all() == []
    store.add("mix", "before", {"rate": 100})
    assert Store(file, {}).notes("mix", "before").all() == []


def test_figures_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    Store(tmp_path / "file", {"seconds": 60}).add("it", "before", {"rate": 1})
    with pytest.raises(LoadImpossible, match="--fresh"):
        Store(tmp_path / "file", {"seconds": 10})


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with alone(lock), pytest.raises(LoadImpossible, match="already"), alone(lock):
        pytest.fail("Both hold it.")


def test_parts_are_chosen_by_name() -> None:
    assert parts_of([]) == list(PARTS)
    assert [part.name for part in parts_of(["one", "mix"])] == ["mix", "one"]
    with pytest.raises(LoadImpossible, match=r"called nix; there are: mix, latency"):
        parts_of(["nix"])
