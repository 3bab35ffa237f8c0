"""Transfers that cannot arrive: refused credits, refunds, and their repeats."""

import msgspec

from integration.bank import ANNA, Bank, MakeBank
from microfin.ledger.account_number import derive_account_number
from microfin.ledger.operation import operation_id
from microfin.ledger.routing import partition_of
from microfin.ledger.wire import Command
from microfin_worker.tenure import LOOK_UP_BATCHES


async def between_two_partitions(make_bank: MakeBank) -> tuple[Bank, str, str]:
    bank = await make_bank(partitions=2)
    await bank.workers()
    source = await bank.open_on(0, balance="100")
    destination = await bank.open_on(1, balance="1")
    await bank.check()
    return bank, source, destination


async def test_a_transfer_arrives_on_the_other_partition(make_bank: MakeBank) -> None:
    bank, source, destination = await between_two_partitions(make_bank)
    operation = await bank.final(await bank.transfer(source, destination, "40", "t"))
    assert (operation.status, operation.balance) == ("settled", 6_000)
    assert await bank.balance(destination) == 4_100
    await bank.check()


async def test_a_refund_arrives_after_the_source_was_closed(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=2)
    workers = await bank.workers()
    source = await bank.open_on(0, balance="100")
    destination = await bank.open_on(1)
    await bank.set_state(destination, "closed", "close")
    await bank.check()
    await workers[1].end()  # the credit waits in the log
    transfer = await bank.transfer(source, destination, "100", "all of it")
    await bank.final(await bank.set_state(source, "closed", "close"))
    await (await bank.worker(1)).ready()
    operation = await bank.final(transfer)
    assert (operation.status, operation.reason) == ("refunded", "account_closed")
    assert await bank.balance(source) == 10_000
    report = await bank.check()
    assert report.ok


async def test_a_refused_credit_is_still_refused_when_resent_later(make_bank: MakeBank) -> None:
    bank, source, destination = await between_two_partitions(make_bank)
    await bank.final(await bank.set_state(destination, "frozen", "freeze"))
    refunded = await bank.final(await bank.transfer(source, destination, "40", "t"))
    assert (refunded.status, refunded.reason) == ("refunded", "account_frozen")
    await bank.final(await bank.set_state(destination, "open", "unfreeze"))
    credit = Command(
        kind="transfer",
        leg="credit",
        operation=operation_id(ANNA, "t", "transfer", source),
        account=destination,
        counterparty=source,
        user=ANNA,
        amount="40",
        currency="EUR",
    )
    await bank.append(credit)
    await bank.final(await bank.deposit(destination, "1", "after the repeat"))
    assert await bank.balance(source) == 10_000
    assert await bank.balance(destination) == 200
    await bank.check()


async def test_every_leg_repeated_many_times_has_one_effect(make_bank: MakeBank) -> None:
    bank, source, destination = await between_two_partitions(make_bank)
    request = bank.request("transfer", source, "t", counterparty=destination, amount="10")
    for _ in range(20):
        await bank.append(request)
    await bank.final(request.operation)
    credit = msgspec.structs.replace(
        request, leg="credit", account=destination, counterparty=source, currency="EUR"
    )
    for _ in range(20):
        await bank.append(credit)
    await bank.final(await bank.deposit(destination, "1", "behind the repeats"))
    assert await bank.balance(source) == 9_000
    assert await bank.balance(destination) == 1_200
    await bank.check()


async def test_a_late_repeat_costs_no_claim(make_bank: MakeBank) -> None:
    """A worker that mistakes a leg for new sees by the key that it is not, and looks it up."""
    bank = await make_bank(partitions=1)
    worker = (await bank.workers())[0]
    account = await bank.open_on(0, balance="1")
    request = bank.request("deposit", account, "repeated", amount="1")
    await bank.append(request)
    for n in range(LOOK_UP_BATCHES + 10):
        await bank.final(await bank.deposit(account, "1", f"a batch of its own {n}"))
    await bank.append(request)
    await bank.final(await bank.deposit(account, "1", "behind the repeat"))
    assert await bank.balance(account) == 100 * (LOOK_UP_BATCHES + 13)
    assert (await worker.status())["epoch"] == 1
    await bank.check()


async def test_an_account_number_in_use_is_passed_on(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=2)
    await bank.workers()
    number = await bank.open("taken")
    await bank.check()
    again = bank.request("open", number, "another", currency="EUR")
    operation = await bank.final(await bank.append(again))
    assert operation.status == "settled"
    assert operation.account != number
    await bank.check()


async def test_a_repeated_open_opens_nothing_more(make_bank: MakeBank) -> None:
    """On the shard of its second number nothing would know the operation."""
    bank = await make_bank(partitions=2, shards=2)
    await bank.workers()
    request = first_and_second_number_apart(bank)
    number = (await bank.final(await bank.append(request))).account
    for n in range(LOOK_UP_BATCHES + 10):
        await bank.final(await bank.deposit(number, "1", f"a batch of its own {n}"))
    await bank.append(request)
    await bank.final(await bank.deposit(number, "1", "behind the repeat"))
    await bank.check()
    assert [row["number"] for row in await bank.fetch("SELECT number FROM accounts")] == [number]


def first_and_second_number_apart(bank: Bank) -> Command:
    """A request to open an account whose second number is on another partition than its first."""
    for n in range(1_000):
        operation = operation_id(ANNA, f"apart {n}", "open", "")
        numbers = [derive_account_number(operation, attempt) for attempt in (0, 1)]
        if len({partition_of(it, bank.partitions) for it in numbers}) == 2:
            break
    return bank.request("open", numbers[0], f"apart {n}", operation=operation, currency="EUR")
