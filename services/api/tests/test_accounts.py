"""Accounts and statements, as their owner sees them."""

import csv
import io

import pytest

from microfin.ledger.account_number import is_account_number
from microfin.postgres import statement_periods
from support.api_under_test import Api, Ledger, User, running


async def test_a_new_account(user: User) -> None:
    answer = await user.client.post("/api/accounts", json={"currency": "KWD"})
    opened = answer.json()
    number = opened["accountNumber"]
    assert answer.status_code == 201
    assert is_account_number(number)
    assert (opened["status"], opened["balance"], opened["currency"]) == ("settled", "0.000", "KWD")
    shown = (await user.client.get(answer.headers["location"])).json()
    assert shown.pop("asOf")
    assert shown == {
        "accountNumber": number,
        "balance": "0.000",
        "available": "0.000",
        "held": "0.000",
        "currency": "KWD",
        "state": "open",
        "seq": 0,
    }


async def test_the_default_currency_is_a_setting(ledger: Ledger) -> None:
    async with running(ledger.settings(default_currency="CHF")) as api:
        user = await api.user()
        for answer in (
            await user.client.post("/api/accounts", json={}),
            await user.client.post("/api/accounts"),
            await user.client.get("/api/accountGeneration"),
        ):
            assert answer.json()["currency"] == "CHF"


async def test_own_accounts_are_listed(api: Api, user: User) -> None:
    numbers = [await user.account(balance="5"), await user.account("USD")]
    listed = (await user.client.get("/api/accounts")).json()["accounts"]
    assert [account["accountNumber"] for account in listed] == numbers
    assert [account["balance"] for account in listed] == ["5.00", "0.00"]
    other = await api.user()
    assert (await other.client.get("/api/accounts")).json() == {"accounts": []}


async def history(user: User) -> tuple[str, str]:
    """Make entries of every kind, and return the account and the other one."""
    number, other = await user.account(balance="10"), await user.account(balance="10")
    here, there = {"senderAccountNumber": number}, {"senderAccountNumber": other}
    for path, body in (
        ("/api/withdraw", {"accountNumber": number, "amount": "1"}),
        ("/api/transfer", {**here, "receiverAccountNumber": other, "amount": "2"}),
        ("/api/transfer", {**there, "receiverAccountNumber": number, "amount": "0.50"}),
    ):
        assert (await user.client.post(path, json=body)).status_code == 200
    return number, other


async def test_a_statement_shows_the_newest_first(user: User) -> None:
    number, other = await history(user)
    statement = (await user.client.get(f"/api/accounts/{number}/entries")).json()
    assert (statement["accountNumber"], statement["currency"]) == (number, "EUR")
    assert "nextCursor" not in statement
    entries = statement["entries"]
    assert [entry["seq"] for entry in entries] == [4, 3, 2, 1]
    assert [entry["amount"] for entry in entries] == ["0.50", "-2.00", "-1.00", "10.00"]
    assert [entry["balanceAfter"] for entry in entries] == ["7.50", "7.00", "9.00", "10.00"]
    assert [entry["kind"] for entry in entries] == ["transfer", "transfer", "withdraw", "deposit"]
    assert [entry.get("counterparty") for entry in entries] == [other, other, None, None]
    for entry in entries:
        answer = await user.client.get(f"/api/operations/{entry['operationId']}")
        assert answer.json()["status"] == "settled"


async def test_pages_follow_each_other(user: User) -> None:
    number = await user.account()
    for _ in range(5):
        await user.deposit(number, "1")
    path, cursor, seen = f"/api/accounts/{number}/entries?limit=2", "", []
    while True:
        page = (await user.client.get(f"{path}&cursor={cursor}" if cursor else path)).json()
        seen += [entry["seq"] for entry in page["entries"]]
        cursor = page.get("nextCursor", "")
        if not cursor:
            break
    assert seen == [5, 4, 3, 2, 1]


async def test_a_statement_from_the_oldest_on(user: User) -> None:
    number, _ = await history(user)
    path = f"/api/accounts/{number}/entries?order=oldest&limit=3"
    first = (await user.client.get(path)).json()
    assert [entry["seq"] for entry in first["entries"]] == [1, 2, 3]
    await user.deposit(number, "1")  # it is seen by who reads on
    second = (await user.client.get(f"{path}&cursor={first['nextCursor']}")).json()
    assert [entry["seq"] for entry in second["entries"]] == [4, 5]
    assert "nextCursor" not in second
    rows = await user.client.get(path, headers={"Accept": "text/csv"})
    assert [line.partition(",")[0] for line in rows.text.split()] == ["seq", "1", "2", "3"]


async def test_what_a_period_adds_up_to(user: User) -> None:
    number, _ = await history(user)
    path = f"/api/accounts/{number}/entries"
    entries = (await user.client.get(path)).json()["entries"]
    times = {entry["seq"]: entry["time"] for entry in entries}

    async def totals(query: str) -> list[str]:
        shown = (await user.client.get(f"{path}?totals&{query}")).json()["totals"]
        return [shown[it] for it in ("openingBalance", "closingBalance", "paidIn", "paidOut")]

    assert await totals("") == ["0.00", "7.50", "10.50", "3.00"]
    assert await totals(f"from={times[2]}&to={times[4]}") == ["10.00", "7.00", "0.00", "3.00"]
    assert await totals("kind=transfer") == ["0.00", "7.50", "0.50", "2.00"]
    assert await totals("from=2100-01-01T00:00:00Z") == ["7.50", "7.50", "0.00", "0.00"]
    assert await totals("to=1970-01-01T00:00:00Z") == ["0.00", "0.00", "0.00", "0.00"]
    nothing = await user.account()
    shown = (await user.client.get(f"/api/accounts/{nothing}/entries?totals=true")).json()
    assert shown["totals"]["closingBalance"] == "0.00"


async def test_totals_of_too_many_entries_are_refused_with_advice(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, _ = await history(user)
    monkeypatch.setattr(statement_periods, "TOTALLED_MOST", 3)
    answer = await user.client.get(f"/api/accounts/{number}/entries?totals")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")
    assert "this period has 4: ask for a shorter one" in answer.json()["detail"]


async def test_a_statement_is_filtered(user: User) -> None:
    number, _ = await history(user)
    path = f"/api/accounts/{number}/entries"
    entries = (await user.client.get(path)).json()["entries"]
    times = {entry["seq"]: entry["time"] for entry in entries}

    async def seqs(query: str) -> list[int]:
        answer = await user.client.get(f"{path}?{query}")
        return [entry["seq"] for entry in answer.json()["entries"]]

    assert await seqs("kind=transfer") == [4, 3]
    assert await seqs("kind=open") == []
    assert await seqs(f"from={times[3]}") == [4, 3]
    assert await seqs(f"to={times[3]}") == [2, 1]
    assert await seqs(f"from={times[2]}&to={times[4]}&kind=transfer") == [3]
    assert await seqs("from=2100-01-01T00:00:00Z") == []
    assert await seqs("to=1970-01-01T00:00:00Z") == []


async def test_the_balance_at_a_time(user: User) -> None:
    number, _ = await history(user)
    path = f"/api/accounts/{number}/entries"
    for entry in (await user.client.get(path)).json()["entries"]:
        then = (await user.client.get(f"{path}?at={entry['time']}")).json()
        assert then["balance"] == entry["balanceAfter"]
        assert then["seq"] == entry["seq"]
        assert then["at"] == entry["time"]
    before = (await user.client.get(f"{path}?at=1970-01-01T00:00:00Z")).json()
    assert (before["balance"], before["seq"]) == ("0.00", 0)


async def test_a_statement_as_csv(user: User) -> None:
    number, other = await history(user)
    answer = await user.client.get(
        f"/api/accounts/{number}/entries", headers={"Accept": "text/csv"}
    )
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [row["seq"] for row in rows] == ["4", "3", "2", "1"]
    assert rows[1]["amount"] == "-2.00"
    assert rows[1]["currency"] == "EUR"
    assert rows[1]["counterparty"] == other


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/csv, application/json;q=0.5", "text/csv"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("text/csv, application/json", "application/json"),
        ("*/*", "application/json"),
        ("text/csv;q=high", "text/csv"),
        (", ;q=1", "application/json"),
    ],
)
async def test_the_client_chooses_the_form(user: User, accept: str, kind: str) -> None:
    number, _ = await history(user)
    answer = await user.client.get(f"/api/accounts/{number}/entries", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(kind)


async def test_csv_without_a_limit_has_every_page(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microfin_api.endpoints.statements._CSV_PAGE", 2)
    number = await user.account()
    for _ in range(5):
        await user.deposit(number, "1")
    path = f"/api/accounts/{number}/entries"
    whole = await user.client.get(path, headers={"Accept": "text/csv"})
    assert [line.split(",")[0] for line in whole.text.splitlines()[1:]] == list("54321")
    first = await user.client.get(f"{path}?limit=3", headers={"Accept": "text/csv"})
    assert [line.split(",")[0] for line in first.text.splitlines()[1:]] == list("543")


async def test_an_operation_shows_its_end(user: User) -> None:
    number, other = await user.account(balance="10"), await user.account()
    body = {"senderAccountNumber": number, "receiverAccountNumber": other, "amount": "4"}
    settled = (await user.client.post("/api/transfer", json=body)).json()
    shown = (await user.client.get(f"/api/operations/{settled['operationId']}")).json()
    assert shown == {
        "operationId": settled["operationId"],
        "status": "settled",
        "kind": "transfer",
        "accountNumber": number,
        "senderAccountNumber": number,
        "receiverAccountNumber": other,
        "amount": "4.00",
        "currency": "EUR",
        "balance": "6.00",
        "available": "6.00",
        "seq": 2,
        "time": settled["time"],
    }


async def test_amounts_are_exact(user: User) -> None:
    number = await user.account()
    await user.deposit(number, "0.10")
    assert (await user.deposit(number, "0.20"))["balance"] == "0.30"
    content = f'{{"accountNumber":"{number}","amount":9007199254740.93}}'
    answer = await user.client.post("/api/deposit", content=content)
    assert answer.json()["amount"] == "9007199254740.93"
    assert answer.json()["balance"] == "9007199254741.23"
