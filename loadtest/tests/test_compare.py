"""The comparison of ledgers: adapters, what is sent, and the result."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
import typer

from microfin_loadtest.compare.adapter import Account, Transfer, plan_of
from microfin_loadtest.compare.bars import draw_bars
from microfin_loadtest.compare.client import Answered, Load, read_answered
from microfin_loadtest.compare.command import numbers
from microfin_loadtest.compare.named import Named, find_ledgers
from microfin_loadtest.compare.result import Measured, result_of
from microfin_loadtest.compare.run import Request, compare
from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.k6 import find_k6

ACCOUNTS = [{"number": "1", "session": "a"}, {"number": "2", "session": "b"}]
TRANSFER = Transfer(
    url="http://127.0.0.1:1/transfers",
    headers={"Authorization": "Bearer <sender.session>"},
    body='{"from": "<sender.number>", "to": "<receiver.number>", "reference": "<unique>"}',
)
ADAPTER = """
class Adapter:
    def __init__(self, where): self.where = where
    def prepare(self, accounts): return []
    def transfer(self): return None
    def settled(self): return 7
    def audit(self): return ""
"""


class Silent:
    """A ledger that nobody has started."""

    def prepare(self, accounts: int) -> Sequence[Account]:
        httpx.get(f"http://127.0.0.1:1/accounts?number={accounts}")
        return []

    def transfer(self) -> Transfer:
        return TRANSFER

    def settled(self) -> int:
        return 0

    def audit(self) -> str:
        return ""


def measured(load: str, settled: int, late: int = 0, answered: int | None = None) -> Measured:
    said = settled if answered is None else answered
    latency = {"p50": 2.0, "p99": float(settled), "max": 9.0}
    return Measured(load, settled, late, 1.0, Answered(said, 3, latency, 10.0, 0.5))


def test_a_plan_has_the_accounts_and_the_request() -> None:
    plan = plan_of(ACCOUNTS, TRANSFER, "run")
    assert plan["accounts"] == ACCOUNTS
    assert plan["headers"] == {"Authorization": "Bearer <sender.session>"}
    assert (plan["method"], plan["settled_statuses"], plan["run"]) == ("POST", (200,), "run")
    json.dumps(plan)


@pytest.mark.parametrize(
    ("accounts", "body", "said"),
    [
        (ACCOUNTS, "<unique><sender.iban>", "<sender.iban>.*has no iban.*number, session"),
        (ACCOUNTS, "<sender.number>", "no <unique>"),
        (ACCOUNTS[:1], "<unique>", "less than two"),
        ([*ACCOUNTS, {"session": "c"}], "<unique><receiver.number>", "has no number"),
    ],
)
def test_a_request_that_cannot_be_sent_is_refused(
    accounts: list[Account], body: str, said: str
) -> None:
    with pytest.raises(LoadImpossible, match=said):
        plan_of(accounts, Transfer(url="http://127.0.0.1:1/", body=body), "run")


def test_adapters_are_found_by_their_file_and_know_where_their_ledger_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(ADAPTER)
    (one,) = find_ledgers([f"{file}=http://127.0.0.1:5001"])
    assert (one.name, one.ledger.settled()) == ("mine", 7)
    assert one.ledger.where == "http://127.0.0.1:5001"  # type: ignore[attr-defined]
    two = find_ledgers([f"{file}=a", f"{file}=b"])
    assert [named.name for named in two] == [f"{file}=a", f"{file}=b"]
    with pytest.raises(LoadImpossible, match="twice"):
        find_ledgers([str(file), str(file)])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("missing.py", None, r"no adapter .*missing\.py.*load-testing"),
        ("empty.py", "", "no class called Adapter"),
        ("half.py", "class Adapter:\n    def prepare(self): ...", "no transfer, settled, audit"),
        ("notes.txt", "", "no Python file"),
    ],
)
def test_what_is_no_adapter_is_said(name: str, text: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(LoadImpossible, match=said):
        find_ledgers([str(file)])


def test_a_ledger_that_does_not_answer_is_named(tmp_path: Path) -> None:
    request = Request([Named("silent", Silent())], [Load(1)], 1, 1, 10, 0)
    with pytest.raises(LoadImpossible, match=r"silent does not answer.*silent=WHERE"):
        compare(request, tmp_path / "k6", tmp_path, lambda _: None)


def test_without_k6_and_go_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LoadImpossible, match="k6 is not installed"):
        find_k6(tmp_path, lambda _: None)


def test_microfin_must_run() -> None:
    command = [sys.executable, "-m", "microfin_loadtest", "compare", "microfin=/nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "make start" in done.stderr


def test_what_compare_js_writes() -> None:
    latency = {"count": 4, "med": 1.234, "p(95)": 2, "p(99)": 3, "max": 4}
    metrics = {"settled": {"count": 4}, "other": {"count": 1}, "latency": latency}
    answered = read_answered({"milliseconds": 2500, "metrics": metrics}, 0.5)
    assert answered == Answered(4, 1, {"p50": 1.23, "p99": 3, "max": 4}, 2.5, 0.5)
    assert read_answered({"milliseconds": 1, "metrics": {}}, 0.5).latency_ms == {}


def test_a_result_has_medians_and_ratios_to_the_first_ledger() -> None:
    runs = {
        "first": [measured("1", 100), measured("16", 500), measured("1", 300), measured("1", 200)],
        "second": [measured("1", 100), measured("16", 1000), measured("1", 90), measured("1", 110)],
    }
    result = result_of(runs, {"first": "", "second": ""}, {"seconds": 10})
    assert result["valid"]
    ones = result["ledgers"]["first"]["1"]
    assert (ones["settled_per_second"], ones["runs"]) == (20, [10, 30, 20])
    assert ones["settled_ms"] == {"p50": 2, "p99": 200, "max": 9}
    assert (ones["other_answers"], ones["client_cpu_seconds"]) == (9, 1.5)
    assert result["ratios"] == {"first": {"1": 1, "16": 1}, "second": {"1": 0.5, "16": 2}}


@pytest.mark.parametrize(
    ("run", "wrong", "said"),
    [
        (measured("1", 90, late=9, answered=100), "", "100 were answered as settled.*only 99"),
        (measured("1", 0), "", "nothing settled"),
        (measured("1", 100), "a cent is missing", "a cent is missing"),
    ],
)
def test_a_comparison_does_not_count_where_a_ledger_is_wrong(
    run: Measured, wrong: str, said: str
) -> None:
    result = result_of({"it": [run]}, {"it": wrong}, {})
    assert not result["valid"]
    with pytest.raises(LoadImpossible, match=f"it.*{said}"):
        raise LoadImpossible(" ".join(result["reasons"]))


def test_what_settles_after_the_client_has_ended_counts_as_settled_but_not_in_the_rate() -> None:
    result = result_of({"it": [measured("1", 90, late=10, answered=100)]}, {"it": ""}, {})
    assert result["valid"]
    figures = result["ledgers"]["it"]["1"]
    assert (figures["settled_per_second"], figures["settled_late"]) == (9, 10)


def test_the_plot_has_a_bar_for_each_ledger_and_load() -> None:
    figures = {"1": {"settled_per_second": 3}, "64 hot": {"settled_per_second": 0.5}}
    picture = ElementTree.fromstring(draw_bars("a < b", {"one": figures, "two & three": figures}))  # noqa: S314 - our own.
    bars = picture.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 1 + 4
    assert all(float(bar.attrib["height"]) > 0 for bar in bars[1:])


def test_connections() -> None:
    assert numbers("1,16 64") == [1, 16, 64]
    for text in ("", "0", "1,x", "-1", "1.5"):
        with pytest.raises(typer.BadParameter):
            numbers(text)
