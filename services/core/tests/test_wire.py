import pytest
from hypothesis import given
from hypothesis import strategies as st

from microfin.ledger import wire
from microfin.ledger.account_number import derive_account_number
from microfin.ledger.wire import Command

ACCOUNT = derive_account_number("0" * 32, 0)
OTHER = derive_account_number("0" * 32, 1)
OPERATION = "0123456789abcdef" * 2


def deposit(**fields: object) -> Command:
    return Command(
        **{
            "kind": "deposit",
            "leg": "request",
            "operation": OPERATION,
            "account": ACCOUNT,
            "user": "a" * 32,
            "amount": "12.5",
            **fields,
        }
    )


def test_a_command_is_the_same_after_the_way_there_and_back() -> None:
    command = deposit(generation=3, deadline=7, reply="i/r")
    assert wire.decode(ACCOUNT.encode(), wire.encode(command)) == command


def test_the_bytes_are_those_of_the_reference() -> None:
    """The example in docs/reference/wire-format.md; a reader of the last release reads it."""
    assert wire.encode(deposit(generation=1)) == (
        b'{"v":1,"kind":"deposit","leg":"request","operation":"%s","account":"%s","user":"%s",'
        b'"amount":"12.5","generation":1}'
    ) % (OPERATION.encode(), ACCOUNT.encode(), b"a" * 32)


def test_unknown_fields_are_ignored() -> None:
    value = wire.encode(deposit())[:-1] + b',"added_later":{"x":1}}'
    assert wire.decode(ACCOUNT.encode(), value) == deposit()


@pytest.mark.parametrize(
    ("key", "command", "reason"),
    [
        (b"x", deposit(), "key"),
        (ACCOUNT.encode(), deposit(operation="1"), "operation id"),
        (b"1", deposit(account="1"), "account number"),
        (ACCOUNT.encode(), deposit(user="nobody"), "user"),
        (ACCOUNT.encode(), deposit(amount="01"), "amount"),
        (ACCOUNT.encode(), deposit(amount="0"), "amount"),
        (ACCOUNT.encode(), deposit(amount="1e3"), "amount"),
        (ACCOUNT.encode(), deposit(kind="transfer", counterparty="5"), "counterparty"),
        (ACCOUNT.encode(), deposit(leg="credit"), "credit"),
        (ACCOUNT.encode(), deposit(leg="refund", kind="transfer", counterparty=OTHER), "refund"),
        (ACCOUNT.encode(), deposit(kind="set_state"), "state"),
    ],
)
def test_what_cannot_be_decided_is_undecodable(key: bytes, command: Command, reason: str) -> None:
    with pytest.raises(wire.Undecodable, match=reason):
        wire.decode(key, wire.encode(command))


def test_what_is_left_of_a_broken_command_is_kept() -> None:
    value = wire.encode(deposit(reply="i/r")).replace(b'"12.5"', b"12.5")
    with pytest.raises(wire.Undecodable) as caught:
        wire.decode(ACCOUNT.encode(), value)
    identity = caught.value.identity
    assert identity is not None
    assert (identity.operation, identity.account, identity.reply) == (OPERATION, ACCOUNT, "i/r")


@pytest.mark.parametrize(
    "value",
    [b'{"v":2,"what":"ever"}', b'{"v":2}', wire.encode(deposit()).replace(b'"v":1', b'"v":99')],
)
def test_a_newer_version_is_not_garbage(value: bytes) -> None:
    with pytest.raises(wire.NewerVersion):
        wire.decode(ACCOUNT.encode(), value)


@pytest.mark.parametrize("version", [b"0", b"-1", b'"1"', b"null", b"1.5"])
def test_a_version_that_was_never_written_is_undecodable(version: bytes) -> None:
    value = wire.encode(deposit()).replace(b'"v":1', b'"v":' + version)
    with pytest.raises(wire.Undecodable):
        wire.decode(ACCOUNT.encode(), value)


@given(st.none() | st.binary(max_size=200), st.none() | st.binary(max_size=20))
def test_garbage_is_undecodable_and_nothing_else(value: bytes | None, key: bytes | None) -> None:
    with pytest.raises((wire.Undecodable, wire.NewerVersion)):
        wire.decode(key, value)


@given(st.data())
def test_a_changed_byte_never_crashes_the_reader(data: st.DataObject) -> None:
    value = bytearray(wire.encode(deposit(reply="i/r")))
    position = data.draw(st.integers(0, len(value) - 1))
    value[position] = data.draw(st.integers(0, 255))
    try:
        wire.decode(ACCOUNT.encode(), bytes(value))
    except (wire.Undecodable, wire.NewerVersion):
        return
