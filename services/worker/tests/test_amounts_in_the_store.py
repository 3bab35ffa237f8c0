"""Every amount that the API accepts, in currencies of every exponent, against the real store."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microfin.ledger.money import EXPONENTS
from microfin.postgres import queries
from microfin_local.platform import Platform
from support.drawn_commands import READABLE_AMOUNTS
from support.postgres_ledger import PostgresLedger, make_ledger_databases

ANNA = "a" * 32
CURRENCIES = sorted({exponent: code for code, exponent in EXPONENTS.items()}.values())
REASONS = {"", "balance_limit", "insufficient_funds", "too_many_decimals"}


async def test_the_database_accepts_the_decisions_about_every_amount(
    platform: Platform,
) -> None:
    databases = await make_ledger_databases(platform, "amounts", 1, 2)
    urls = [platform.postgres_direct(0, "microfin_worker", it) for it in databases]
    async with PostgresLedger(urls, 2) as ledger:
        accounts = {code: [ledger.open(ANNA, code, it) for it in (0, 0, 1)] for code in CURRENCIES}
        await ledger.drain()
        loop = asyncio.get_running_loop()

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            st.lists(
                st.tuples(
                    st.sampled_from(["deposit", "withdraw", "transfer"]),
                    st.sampled_from(CURRENCIES),
                    st.sampled_from([1, 2]),
                    READABLE_AMOUNTS,
                ),
                min_size=1,
                max_size=12,
            )
        )
        def check(asked: list[tuple[str, str, int, str]]) -> None:
            asyncio.run_coroutine_threadsafe(decide(asked), loop).result()

        async def decide(asked: list[tuple[str, str, int, str]]) -> None:
            operations = [
                ledger.request(
                    kind,  # type: ignore[arg-type]
                    accounts[code][0],
                    user=ANNA,
                    amount=amount,
                    to=accounts[code][other] if kind == "transfer" else "",
                )
                for kind, code, other, amount in asked
            ]
            await ledger.drain()
            found = await queries.operations(ledger.pools, operations)
            assert {found[it].operation.reason for it in operations} <= REASONS

        await asyncio.to_thread(check)
