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


def test_only_what_is_new_has_the_new_version() -> None:
    """Workers of the release before read all else."""
    noted = deposit(reference="Invoice 117", metadata={"order": "A-17"})
    assert wire.encode(noted).startswith(b'{"v":2,"kind"')
    assert wire.encode(deposit()).startswith(b'{"v":1,"kind"')
    assert wire.decode(ACCOUNT.encode(), wire.encode(noted)) == noted
    assert (wire.version_of(noted), wire.version_of(deposit())) == (2, 1)


@pytest.mark.parametrize("field", [{"reference": "x"}, {"metadata": {"a": "b"}}])
def test_what_is_new_is_undecodable_in_the_old_version(field: dict[str, object]) -> None:
    value = wire.encode(deposit(**field)).replace(b'"v":2', b'"v":1')
    with pytest.raises(wire.Undecodable, match="version 1"):
        wire.decode(ACCOUNT.encode(), value)


def test_the_place_of_the_version_does_not_matter() -> None:
    value = wire.encode(deposit(reference="x"))
    elsewhere = value.replace(b'"v":2,', b"")[:-1] + b',"v":2}'
    assert wire.decode(ACCOUNT.encode(), elsewhere) == deposit(reference="x")


def test_the_order_of_metadata_does_not_matter_and_its_content_does() -> None:
    pairs = {"b": "2", "a": "1"}
    body = wire.body_hash(deposit(metadata=pairs))
    assert body == wire.body_hash(deposit(metadata=dict(sorted(pairs.items()))))
    others: list[dict[str, object]] = [
        {"metadata": {"a": "1"}},
        {"metadata": {"a": "2", "b": "1"}},
        {"metadata": {"a1": "", "b": "2"}},
        {"metadata": pairs, "reference": "x"},
        {"reference": "a"},
        {},
    ]
    hashes = {wire.body_hash(deposit(**other)) for other in others}
    assert len(hashes) == len(others)
    assert body not in hashes


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
        (ACCOUNT.encode(), deposit(kind="open", reference="x"), "open has neither"),
        (ACCOUNT.encode(), deposit(reference="x" * 141), "140 characters"),
        (ACCOUNT.encode(), deposit(reference="a\x1fb"), "reference has a control"),
        (ACCOUNT.encode(), deposit(reference="a\x85b"), "reference has a control"),
        (ACCOUNT.encode(), deposit(metadata={}), "no pair"),
        (ACCOUNT.encode(), deposit(metadata={"": "x"}), "without a name"),
        (ACCOUNT.encode(), deposit(metadata={"a": "\0"}), "metadata has a control"),
        (ACCOUNT.encode(), deposit(metadata={"a\n": ""}), "metadata has a control"),
        (ACCOUNT.encode(), deposit(metadata={str(it): "" for it in range(21)}), "20 pairs"),
        (ACCOUNT.encode(), deposit(metadata={"a": "ü" * 1_024}), "2048 bytes"),
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
    [b'{"v":4,"what":"ever"}', b'{"v":4}', wire.encode(deposit()).replace(b'"v":1', b'"v":99')],
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
