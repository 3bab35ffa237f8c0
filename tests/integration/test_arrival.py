"""Transfers that cannot arrive: refused credits, refunds, and their repeats."""

import msgspec
from bank import ANNA, Bank, MakeBank

from microfin.operation import operation_id
from microfin.wire import Command


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


async def test_an_account_number_that_is_taken_is_passed_on(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=2)
    await bank.workers()
    number = await bank.open("taken")
    await bank.check()
    again = bank.request("open", number, "another", currency="EUR")
    operation = await bank.final(await bank.append(again))
    assert operation.status == "settled"
    assert operation.account != number
    await bank.check()
