"""The decision core against a naive model, and its rules one by one."""

import copy
from collections import defaultdict
from decimal import Decimal
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from microfin.ledger.account_number import derive_account_number
from microfin.ledger.decision import GenerationAhead
from microfin.ledger.money import BALANCE_LIMIT, EXPONENTS, to_decimal_text
from microfin.ledger.records import Received
from microfin.ledger.routing import Routing, partition_of
from microfin.ledger.wire import Command, Identity, body_hash
from support.drawn_commands import ANNA, BERT, NUMBERS, READABLE_AMOUNTS, operation, requests
from support.memory_ledger import Cluster, PartitionLedger
from support.naive_model import DECIMALS, NaiveBank


def receive(commands: list[Command]) -> list[Received]:
    return [Received(offset, 1_000 + offset, command) for offset, command in enumerate(commands)]


def split(batch: list[Received], cuts: list[int]) -> list[list[Received]]:
    edges = sorted({0, len(batch), *(cut % (len(batch) + 1) for cut in cuts)})
    return [batch[start:end] for start, end in pairwise(edges)]


def assert_invariants(cluster: Cluster) -> None:
    for ledger in cluster.ledgers:
        sums: dict[tuple[str, str], int] = defaultdict(int)
        lines: dict[str, list] = defaultdict(list)
        for entry in ledger.entries:
            currency = ledger.accounts[entry.account].currency
            sums[(entry.contra, currency)] -= entry.amount
            lines[entry.account].append(entry)
        assert {key: value for key, value in sums.items() if value} == {
            key: value for key, value in ledger.contra.items() if value
        }
        for account in ledger.accounts.values():
            balance = time = 0
            for seq, entry in enumerate(lines[account.number], start=1):
                balance += entry.amount
                assert (entry.seq, entry.balance_after) == (seq, balance)
                assert balance >= 0
                assert entry.time >= time
                time = entry.time
            assert (account.balance, account.seq) == (balance, len(lines[account.number]))
        assert_holds(ledger)


def assert_holds(ledger: PartitionLedger) -> None:
    """What is held is what open holds have left, and what the outcomes add up to (invariant 13)."""
    left: dict[str, int] = defaultdict(int)
    changes: dict[str, int] = defaultdict(int)
    by_hold: dict[str, int] = defaultdict(int)
    for hold in ledger.holds.values():
        assert 0 < hold.left <= hold.amount
        left[hold.account] += hold.left
    for outcome in ledger.outcomes.values():
        changes[outcome.account] += outcome.held_change
        if outcome.held_change:
            by_hold[outcome.hold or outcome.operation] += outcome.held_change
    for account in ledger.accounts.values():
        assert 0 <= account.held <= account.balance
        assert account.held == left[account.number] == changes[account.number]
    open_ones = {it: hold.left for it, hold in ledger.holds.items()}
    assert {it: sum_ for it, sum_ in by_hold.items() if sum_} == open_ones


@given(requests())
@settings(max_examples=400, deadline=None)
def test_one_partition_agrees_with_the_naive_model(commands: list[Command]) -> None:
    bank, cluster = NaiveBank(), Cluster(1)
    for command in commands:
        cluster.append(command)
        bank.apply(command, cluster.time)
    cluster.drain()
    ledger = cluster.ledgers[0]
    assert_invariants(cluster)
    assert {
        key[0]: outcome.reason or outcome.status for key, outcome in ledger.outcomes.items()
    } == bank.answers
    noted = {(it.operation, it.reference, tuple((it.metadata or {}).items())) for it in commands}
    for outcome in ledger.outcomes.values():
        pairs = tuple((outcome.metadata or {}).items())
        assert (outcome.operation, outcome.reference, pairs) in noted
    references = {it.operation: it.reference for it in ledger.outcomes.values()}
    assert all(it.reference == references[it.operation] for it in ledger.entries)
    assert set(ledger.accounts) == set(bank.accounts)
    for held, account in ledger.accounts.items():
        naive = bank.accounts[held]
        assert to_decimal_text(account.balance, account.currency) == str(
            naive.balance.quantize(Decimal(1).scaleb(-DECIMALS[account.currency]))
        )
        assert account.state == naive.state
        assert Decimal(to_decimal_text(account.held, account.currency)) == bank.held(held)
        assert account.seq == len(naive.lines)


@given(
    st.sampled_from(["deposit", "withdraw", "transfer"]),
    st.sampled_from(sorted({value: code for code, value in EXPONENTS.items()}.values())),
    st.lists(READABLE_AMOUNTS, min_size=1, max_size=4),
    st.integers(1, 2),
)
@settings(max_examples=400, deadline=None)
def test_every_amount_that_the_api_accepts_gives_an_outcome_that_the_database_accepts(
    kind: str, currency: str, amounts: list[str], partitions: int
) -> None:
    """The ledger in memory refuses what PostgreSQL refuses."""
    cluster = opened(partitions=partitions, currency=currency, accounts=2)
    for index, amount in enumerate(amounts):
        cluster.append(
            Command(
                kind=kind,
                leg="request",
                operation=operation(index),
                account=NUMBERS[0],
                user=ANNA,
                counterparty=NUMBERS[1] if kind == "transfer" else "",
                amount=amount,
            )
        )
    cluster.drain()
    for index in range(len(amounts)):
        key = (operation(index), "request")
        [reason] = [it.outcomes[key].reason for it in cluster.ledgers if key in it.outcomes]
        assert reason in ("", "balance_limit", "insufficient_funds", "too_many_decimals")


@pytest.mark.parametrize(
    ("amount", "needed"), [("9223372036854775.807", 2**63 - 1), ("9223372036854775.808", None)]
)
def test_the_need_is_shown_as_far_as_any_account_could_hold_it(
    amount: str, needed: int | None
) -> None:
    cluster = opened(currency="BHD", accounts=1)
    cluster.append(
        Command(
            kind="withdraw",
            leg="request",
            operation=operation(1),
            account=NUMBERS[0],
            user=ANNA,
            amount=amount,
        )
    )
    cluster.drain()
    outcome = cluster.ledgers[0].outcomes[(operation(1), "request")]
    assert (outcome.reason, outcome.needed, outcome.available) == ("insufficient_funds", needed, 0)


@given(requests(), st.lists(st.integers(0, 100), max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_split_into_batches_gives_the_same_state(
    commands: list[Command], cuts: list[int]
) -> None:
    whole, split_up = PartitionLedger(0, Routing(1, 1)), PartitionLedger(0, Routing(1, 1))
    batch = receive(commands)
    whole.settle(batch)
    for piece in split(batch, cuts):
        split_up.settle(piece)
    assert whole.state() == split_up.state()


@given(requests(), st.integers(2, 5), st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_money_arrives_across_partitions_in_any_order(
    commands: list[Command], partitions: int, seed: int
) -> None:
    """Every leg may be delivered twice, every partition may lag: each transfer ends once."""
    random = Random(seed)
    cluster = Cluster(partitions)
    waiting = list(commands)
    while waiting or any(cluster.logs):
        if waiting and random.random() < 0.4:
            cluster.append(waiting.pop(0))
            continue
        partition = random.randrange(partitions)
        log = cluster.logs[partition]
        if log and random.random() < 0.2:
            repeated = random.choice(log).command
            cluster.append(repeated, partition)
        cluster.settle(partition, random.randint(1, 5))
    assert_invariants(cluster)
    in_transit: dict[str, int] = defaultdict(int)
    legs: dict[str, dict[str, str]] = defaultdict(dict)
    for ledger in cluster.ledgers:
        for (contra, currency), balance in ledger.contra.items():
            if contra == "in_transit":
                in_transit[currency] += balance
        for (held, leg), outcome in ledger.outcomes.items():
            legs[held][leg] = outcome.status
    assert not any(in_transit.values())
    for statuses in legs.values():
        if statuses["request"] == "debited":
            arrived = (statuses["credit"] == "settled", statuses.get("refund") == "settled")
            assert arrived in ((True, False), (False, True))
        else:
            assert set(statuses) == {"request"}


@given(requests())
@settings(max_examples=200, deadline=None)
def test_rejections_and_repeats_change_nothing_and_inputs_are_left_alone(
    commands: list[Command],
) -> None:
    ledger = PartitionLedger(0, Routing(1, 1))
    for received in receive(commands):
        before = copy.deepcopy(ledger.accounts)
        entries = len(ledger.entries)
        held = ledger.accounts
        decisions = ledger.settle([received])
        settled = [outcome for outcome in decisions.outcomes if outcome.status != "rejected"]
        if not settled:
            assert ledger.accounts == before
            assert len(ledger.entries) == entries
            assert not decisions.contra
        assert held is ledger.accounts


def opened(
    *balances: int,
    partitions: int = 1,
    numbers: list[str] = NUMBERS,
    currency: str = "EUR",
    accounts: int = 0,
) -> Cluster:
    """A cluster where the accounts of Anna hold `balances` cents, or `accounts` of them nothing."""
    cluster = Cluster(partitions)
    for index, balance in enumerate(balances or (0,) * accounts):
        account = numbers[index]
        cluster.append(
            Command(
                kind="open",
                leg="request",
                operation=operation(900 + index),
                account=account,
                user=ANNA,
                currency=currency,
            )
        )
        if balance:
            cluster.append(
                deposit(
                    account, to_decimal_text(balance, "EUR").rstrip("0").rstrip("."), 950 + index
                )
            )
    cluster.drain()
    return cluster


def deposit(account: str, amount: str, index: int = 1, **fields: object) -> Command:
    return Command(
        kind="deposit",
        leg="request",
        operation=operation(index),
        account=account,
        user=ANNA,
        amount=amount,
        **{"reply": "api/1", **fields},
    )


def transfer(source: str, destination: str, amount: str, index: int = 1) -> Command:
    return Command(
        kind="transfer",
        leg="request",
        operation=operation(index),
        account=source,
        user=ANNA,
        counterparty=destination,
        amount=amount,
        reply="api/1",
    )


def set_state(account: str, state: str, index: int) -> Command:
    return Command(
        kind="set_state", leg="request", operation=operation(index), account=account, state=state
    )


def apart(partitions: int = 2) -> tuple[str, str]:
    """Two account numbers on two partitions."""
    first = NUMBERS[0]
    home = partition_of(first, partitions)
    return first, next(it for it in NUMBERS if partition_of(it, partitions) != home)


def test_a_known_id_with_another_body_is_refused() -> None:
    cluster = opened(1000)
    cluster.append(deposit(NUMBERS[0], "1"))
    cluster.append(deposit(NUMBERS[0], "2", reply="api/2"))
    cluster.drain()
    first, second = cluster.ledgers[0].answers[-2:]
    assert not first.refused
    assert second.refused
    assert cluster.account(NUMBERS[0]).balance == 1100


def test_a_repeat_gets_the_first_answer() -> None:
    cluster = opened(0)
    cluster.append(deposit(NUMBERS[0], "1"))
    cluster.append(deposit(NUMBERS[0], "5", index=2))
    cluster.append(deposit(NUMBERS[0], "1", reply="api/9"))
    cluster.drain()
    answer = cluster.ledgers[0].answers[-1]
    assert (answer.reply, answer.replayed, answer.operation.balance) == ("api/9", True, 100)


def test_no_answer_carries_metadata() -> None:
    """Answers travel over Redis, where others may hear them; metadata is the sender's alone."""
    cluster = opened(0)
    for reply in ("api/1", "api/2"):
        cluster.append(deposit(NUMBERS[0], "1", reply=reply, metadata={"order": "A-17"}))
    cluster.drain()
    [ledger] = cluster.ledgers
    assert ledger.outcomes[(operation(1), "request")].metadata == {"order": "A-17"}
    answers = [it for it in ledger.answers if it.operation.operation == operation(1)]
    assert [it.replayed for it in answers] == [False, True]
    assert [it.operation.metadata for it in answers] == [None, None]


def test_a_refused_credit_stays_refused_after_the_account_is_opened_again() -> None:
    source, destination = apart()
    cluster = opened(1000, 0, partitions=2, numbers=[source, destination])
    cluster.append(set_state(destination, "frozen", 50))
    cluster.drain()
    cluster.append(transfer(source, destination, "4"))
    cluster.drain()
    credit = next(
        command for ledger in cluster.ledgers for command in ledger.sent if command.leg == "credit"
    )
    cluster.append(set_state(destination, "open", 51))
    cluster.append(credit)
    cluster.drain()
    assert cluster.account(source).balance == 1000
    assert cluster.account(destination).balance == 0


@pytest.mark.parametrize("state", ["frozen", "closed"])
def test_a_refund_applies_in_any_state(state: str) -> None:
    source, nowhere = apart()
    cluster = opened(1000, partitions=2, numbers=[source])
    cluster.append(transfer(source, nowhere, "10"))
    cluster.settle(partition_of(source, 2))
    cluster.append(set_state(source, state, 60))
    cluster.settle(partition_of(source, 2))
    cluster.drain()
    account = cluster.account(source)
    assert (account.balance, account.state) == (1000, state)
    answers = cluster.ledgers[partition_of(source, 2)].answers
    answer = answers[-1].operation
    assert (answer.status, answer.reason, answer.at_account) == (
        "refunded",
        "account_not_found",
        nowhere,
    )


def test_a_refund_goes_beyond_the_balance_limit() -> None:
    source, nowhere = apart()
    cluster = opened(BALANCE_LIMIT, partitions=2, numbers=[source])
    home = partition_of(source, 2)
    cluster.append(transfer(source, nowhere, "10"))
    cluster.settle(home)
    cluster.append(deposit(source, "10", index=2))
    cluster.settle(home)
    cluster.drain()
    assert cluster.account(source).balance == BALANCE_LIMIT + 1000


@pytest.mark.parametrize(("currency", "amount"), [("BHD", "9223372036854775.808"), ("JPY", "0.5")])
def test_a_refund_that_no_account_can_take_is_set_aside_without_an_outcome(
    currency: str, amount: str
) -> None:
    """No worker ever sends one, but a client that may write to the log can."""
    ledger = opened(currency=currency, accounts=1).ledgers[0]
    refund = Command(
        kind="transfer",
        leg="refund",
        operation=operation(1),
        account=NUMBERS[0],
        counterparty=NUMBERS[1],
        amount=amount,
        currency=currency,
    )
    ledger.settle([Received(80, 1, refund)])
    assert (operation(1), "refund") not in ledger.outcomes
    assert len(ledger.quarantined) == 1
    assert ledger.accounts[NUMBERS[0]].balance == 0


def test_a_refund_without_its_account_is_set_aside_without_an_outcome() -> None:
    ledger = PartitionLedger(0, Routing(1, 1))
    refund = Command(
        kind="transfer",
        leg="refund",
        operation=operation(1),
        account=NUMBERS[0],
        counterparty=NUMBERS[1],
        amount="1",
        currency="EUR",
    )
    ledger.settle([Received(0, 1, refund)])
    assert not ledger.outcomes
    assert len(ledger.quarantined) == 1


def test_a_command_in_the_wrong_partition_is_forwarded_with_its_first_time() -> None:
    command = deposit(NUMBERS[0], "1", deadline=5_000)
    wrong = 1 - partition_of(NUMBERS[0], 2)
    ledger = PartitionLedger(wrong, Routing(1, 2))
    ledger.settle([Received(0, 4_000, command)])
    assert ledger.sent == [replace(command, appended=4_000)]
    assert not ledger.outcomes
    assert not ledger.answers


def test_a_late_command_expires_but_not_for_having_been_forwarded() -> None:
    cluster = opened(0)
    ledger = cluster.ledgers[0]
    ledger.settle([Received(90, 6_000, deposit(NUMBERS[0], "1", deadline=5_000))])
    ledger.settle(
        [Received(91, 6_000, deposit(NUMBERS[0], "1", 2, deadline=5_000, appended=4_000))]
    )
    assert ledger.outcomes[(operation(1), "request")].reason == "expired"
    assert ledger.outcomes[(operation(2), "request")].status == "settled"


def test_a_record_from_a_later_routing_stops_the_batch() -> None:
    ledger = PartitionLedger(0, Routing(3, 1))
    with pytest.raises(GenerationAhead, match="generation 4"):
        ledger.settle([Received(7, 1, deposit(NUMBERS[0], "1", generation=4))])


def test_a_number_in_use_is_passed_on_without_an_outcome() -> None:
    cluster = opened(0)
    ledger = cluster.ledgers[0]
    again = Command(
        kind="open",
        leg="request",
        operation=operation(5),
        account=NUMBERS[0],
        user=BERT,
        currency="EUR",
        reply="api/5",
    )
    cluster.append(again)
    cluster.drain()
    assert cluster.account(NUMBERS[0]).owner == ANNA
    outcome = ledger.outcomes[(operation(5), "request")]
    assert outcome.account == derive_account_number(operation(5), 1)
    assert cluster.account(outcome.account).owner == BERT
    cluster.append(again)
    cluster.drain()
    assert len([it for it in ledger.accounts.values() if it.owner == BERT]) == 1
    assert ledger.answers[-1].replayed


def test_a_passed_on_open_keeps_its_first_time() -> None:
    ledger = opened(0).ledgers[0]
    late = Command(
        kind="open",
        leg="request",
        operation=operation(5),
        account=NUMBERS[0],
        user=BERT,
        currency="EUR",
        deadline=5_000,
    )
    ledger.settle([Received(50, 4_000, late)])
    ledger.settle([Received(51, 6_000, ledger.sent[-1])])
    assert ledger.outcomes[(operation(5), "request")].status == "settled"


def test_an_entry_is_never_older_than_the_one_before() -> None:
    cluster = opened(0)
    ledger = cluster.ledgers[0]
    ledger.settle([Received(50, 9_000, deposit(NUMBERS[0], "1", 1))])
    ledger.settle([Received(51, 8_000, deposit(NUMBERS[0], "1", 2))])
    assert [entry.time for entry in ledger.entries] == [9_000, 9_000]


def test_an_unreadable_request_of_this_partition_gets_an_answer() -> None:
    ledger = opened(0).ledgers[0]
    identity = Identity(operation(3), "request", NUMBERS[0], "deposit", ANNA, "api/3")
    ledger.settle([Received(80, 1, None, "not a command", identity)])
    outcome = ledger.outcomes[(operation(3), "request")]
    assert (outcome.status, outcome.reason) == ("rejected", "quarantined")
    assert ledger.answers[-1].operation.reason == "quarantined"
    repeat = deposit(NUMBERS[0], "1", index=3)
    ledger.settle([Received(81, 2, repeat)])
    assert ledger.answers[-1].replayed
    assert not ledger.answers[-1].refused


def test_an_unreadable_credit_gets_no_outcome() -> None:
    ledger = opened(0).ledgers[0]
    identity = Identity(operation(3), "credit", NUMBERS[0], "transfer", ANNA, "api/3")
    ledger.settle([Received(80, 1, None, "not a command", identity)])
    assert (operation(3), "credit") not in ledger.outcomes
    assert len(ledger.quarantined) == 1


def test_one_bad_command_does_not_fail_its_neighbours() -> None:
    ledger = opened(100).ledgers[0]
    ledger.settle(
        [
            Received(70, 1, deposit(NUMBERS[0], "1", 1)),
            Received(71, 1, None, "garbage"),
            Received(72, 1, transfer(NUMBERS[0], NUMBERS[5], "1", 2)),
            Received(73, 1, deposit(NUMBERS[0], "1", 3)),
        ]
    )
    assert ledger.accounts[NUMBERS[0]].balance == 300


def test_the_body_hash_covers_what_is_asked_and_not_how_it_travels() -> None:
    command = deposit(NUMBERS[0], "1")
    travelled = replace(
        command, reply="b/2", generation=9, deadline=1, appended=2, sender_balance=3
    )
    assert body_hash(travelled) == body_hash(command)
    for other in (
        {"amount": "2"},
        {"account": NUMBERS[1]},
        {"counterparty": NUMBERS[1]},
        {"user": BERT},
        {"kind": "withdraw"},
        {"currency": "EUR"},
        {"state": "open"},
    ):
        assert body_hash(replace(command, **other)) != body_hash(command)
