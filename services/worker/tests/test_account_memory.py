from microfin.ledger.records import Account
from microfin_worker.account_memory import AccountMemory


def account(number: str) -> Account:
    return Account(number=number, owner="a" * 32, currency="EUR")


def test_it_recalls_what_it_remembers_and_names_the_others() -> None:
    memory = AccountMemory(10)
    memory.remember({"1": account("1"), "2": account("2")})
    remembered, others = memory.recall(["2", "3"])
    assert remembered == {"2": account("2")}
    assert others == ["3"]


def test_what_was_used_longest_ago_goes_first() -> None:
    memory = AccountMemory(2)
    memory.remember({"1": account("1")})
    memory.remember({"2": account("2")})
    memory.remember({"1": account("1")})
    memory.remember({"3": account("3")})
    assert memory.recall(["1", "2", "3"])[1] == ["2"]


def test_nothing_goes_while_there_is_room() -> None:
    memory = AccountMemory(4)
    for number in "123":
        memory.remember({number: account(number)})
    assert memory.recall("123")[1] == []


def test_nothing_is_remembered_with_no_room() -> None:
    memory = AccountMemory(0)
    memory.remember({"1": account("1")})
    assert memory.recall(["1"]) == ({}, ["1"])


def test_it_forgets_everything() -> None:
    memory = AccountMemory(10)
    memory.remember({"1": account("1")})
    memory.forget()
    assert memory.recall(["1"]) == ({}, ["1"])
