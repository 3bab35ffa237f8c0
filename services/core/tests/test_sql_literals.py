"""Literals mean to PostgreSQL what they were made from, whatever a client has sent."""

import asyncio
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microfin.postgres.literals import binaries, binary, integers, text, texts
from microfin_local.platform import Platform

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
NASTY = [
    "",
    "'",
    "\\",
    '"',
    "\\'; DROP TABLE accounts; --",
    "{}",
    ",",
    "NULL",
    "E'",
    "$$",
    "\n",
    "ß€",
]


@pytest.mark.parametrize("standard", ["on", "off"])
async def test_they_mean_what_they_were_made_from(platform: Platform, standard: str) -> None:
    database = f"literals_{standard}"
    await platform.create_database(database)
    url = platform.postgres_direct(0, database=database)
    await asyncio.to_thread(exchange_all, url, standard)


def exchange_all(url: str, standard: str) -> None:
    """Let PostgreSQL read generated literals. In a thread: Hypothesis knows no event loop."""
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(url, ssl=False))

    def read(literal: str, type_name: str) -> Any:
        return loop.run_until_complete(connection.fetchval(f"SELECT {literal}::{type_name}"))

    @given(
        TEXTS,
        st.lists(st.none() | TEXTS),
        st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)),
        st.lists(st.none() | st.binary()),
    )
    @settings(max_examples=100, deadline=None)
    def exchange(
        one: str,
        many: list[str | None],
        numbers: list[int | None],
        bytes_of_many: list[bytes | None],
    ) -> None:
        assert read(text(one), "text") == one
        assert read(texts(many), "text[]") == many
        assert read(integers(numbers), "bigint[]") == numbers
        assert read(binaries(bytes_of_many), "bytea[]") == bytes_of_many
        for value in bytes_of_many:
            assert read(binary(value), "bytea") == value

    loop.run_until_complete(connection.execute(f"SET standard_conforming_strings = {standard}"))
    exchange()
    assert [read(text(nasty), "text") for nasty in NASTY] == NASTY
    assert read(texts(NASTY), "text[]") == NASTY
    loop.run_until_complete(connection.close())


@pytest.mark.parametrize("make", [text, lambda value: texts([value])])
def test_what_postgresql_cannot_hold_is_refused_as_it_would(make: Any) -> None:
    with pytest.raises(asyncpg.CharacterNotInRepertoireError):
        make("before\0after")
