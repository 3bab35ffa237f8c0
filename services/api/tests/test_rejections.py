"""What the state of an account refuses, and transfers that come back; on one shard and on two."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from microfin.ledger.operation import AccountState
from microfin.ledger.routing import partition_of
from microfin.ledger.wire import Command
from microfin_local.platform import Platform
from support.api_under_test import PARTITIONS, Api, Ledger, User, running


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=[1, 2])
async def bank(
    platform: Platform,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Api]:
    """An API on a ledger of one shard, then of two."""
    folder: Path = tmp_path_factory.mktemp("rejections")
    async with (
        Ledger(platform, folder, shards=request.param) as ledger,
        running(ledger.settings()) as api,
    ):
        yield api


async def set_state(bank: Api, user: User, number: str, state: AccountState) -> None:
    """Do what an administrator's command line does, and wait until it is so."""
    command = Command(
        kind="set_state",
        leg="request",
        operation=uuid4().hex,
        account=number,
        state=state,
        generation=1,
        deadline=int((time.time() + 60) * 1000),
    )
    await bank.services.producer.send(partition_of(number, PARTITIONS), command)
    shown: dict[str, Any] = {}
    while shown.get("state") != state:
        shown = (await user.client.get(f"/api/accounts/{number}")).json()


async def accounts_on(user: User, sender_partition: int, receiver_partition: int) -> list[str]:
    """Open accounts until there is one on each of these partitions."""
    numbers: list[str] = []
    for partition in (sender_partition, receiver_partition):
        number = await user.account()
        while partition_of(number, PARTITIONS) != partition:
            number = await user.account()
        numbers.append(number)
    return numbers


@pytest.mark.parametrize("receiver_partition", [0, 1])
@pytest.mark.parametrize("state", ["frozen", "closed"])
async def test_a_receiver_that_accepts_nothing(
    bank: Api, receiver_partition: int, state: AccountState
) -> None:
    user, other = await bank.user(), await bank.user()
    sender, _ = await accounts_on(user, 0, 0)
    _, receiver = await accounts_on(other, 0, receiver_partition)
    await user.deposit(sender, "10")
    await set_state(bank, other, receiver, state)
    body = {"senderAccountNumber": sender, "receiverAccountNumber": receiver, "amount": "4"}
    headers = {"Idempotency-Key": f"to a {state} account"}
    answer = await user.client.post("/api/transfer", json=body, headers=headers)
    problem = answer.json()
    status = "refunded" if receiver_partition else "rejected"
    assert (answer.status_code, problem["code"]) == (422, f"account_{state}")
    assert (problem["operationStatus"], problem["accountNumber"]) == (status, receiver)
    assert await user.balance(sender) == "10.00"
    shown = (await user.client.get(f"/api/operations/{problem['operationId']}")).json()
    assert (shown["status"], shown["reason"]) == (status, f"account_{state}")
    await set_state(bank, other, receiver, "open")
    again = await user.client.post("/api/transfer", json=body, headers=headers)
    repeated = again.json()
    assert repeated.pop("requestId") != problem.pop("requestId")
    assert repeated == problem
    assert again.headers["idempotency-replayed"] == "true"
    assert await user.balance(sender) == "10.00"


async def test_a_receiver_on_another_partition_that_is_not_there(bank: Api) -> None:
    user = await bank.user()
    sender = await user.account(balance="10")
    codes = set()
    for number in ("100000000008", "100000000016", "100000000024", "100000000032"):
        body = {"senderAccountNumber": sender, "receiverAccountNumber": number, "amount": "4"}
        answer = await user.client.post("/api/transfer", json=body)
        codes.add((answer.status_code, answer.json()["code"]))
    assert codes == {(422, "account_not_found")}
    assert await user.balance(sender) == "10.00"


async def test_a_frozen_account_of_ones_own(bank: Api) -> None:
    user = await bank.user()
    number, other = await user.account(balance="10"), await user.account()
    await set_state(bank, user, number, "frozen")
    for path, body in (
        ("/api/deposit", {"accountNumber": number, "amount": "1"}),
        ("/api/withdraw", {"accountNumber": number, "amount": "1"}),
        (
            "/api/transfer",
            {"senderAccountNumber": number, "receiverAccountNumber": other, "amount": "1"},
        ),
    ):
        answer = await user.client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "account_frozen")
    shown = (await user.client.get(f"/api/accounts/{number}")).json()
    assert (shown["state"], shown["balance"]) == ("frozen", "10.00")


async def test_transfers_between_all_partitions(bank: Api) -> None:
    user = await bank.user()
    for sender_partition in range(PARTITIONS):
        for receiver_partition in range(PARTITIONS):
            sender, receiver = await accounts_on(user, sender_partition, receiver_partition)
            await user.deposit(sender, "10")
            body = {"senderAccountNumber": sender, "receiverAccountNumber": receiver, "amount": 4}
            answer = await user.client.post("/api/transfer", json=body)
            assert (answer.status_code, answer.json()["balance"]) == (200, "6.00")
            shown = await user.client.get(f"/api/operations/{answer.json()['operationId']}")
            assert shown.json()["status"] == "settled"
            assert await user.balance(receiver) == "4.00"
    listed = (await user.client.get("/api/accounts")).json()["accounts"]
    assert {account["balance"] for account in listed} >= {"6.00", "4.00"}
