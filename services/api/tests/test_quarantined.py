"""Whose request the database refused may ask for it afterwards, as before."""

from pathlib import Path

import asyncpg

from microfin_local.platform import Platform
from support.api_answers import ASYNC, finally_of, problem_of
from support.api_under_test import Ledger, running

REFUSED = "666"
PLANTED = "ALTER TABLE outcomes ADD CONSTRAINT planted CHECK (amount <> 66600)"


async def test_its_owner_finds_what_the_database_refused(
    platform: Platform, tmp_path: Path
) -> None:
    async with Ledger(platform, tmp_path) as ledger:
        url = platform.postgres_direct(0, database=f"{ledger.name}_0")
        connection = await asyncpg.connect(url, ssl=False)
        await connection.execute(PLANTED)
        await connection.close()
        async with running(ledger.settings()) as api:
            user, other = await api.user(), await api.user()
            number = await user.account()
            body = {"accountNumber": number, "amount": REFUSED}
            problem = problem_of(await user.client.post("/api/deposit", json=body), 422)
            assert problem["code"] == "quarantined"
            path = f"/api/operations/{problem['operationId']}"
            shown = await finally_of(user, path, "rejected")
            assert shown["reason"] == "quarantined"
            assert (await other.client.get(path)).status_code == 404

            accepted = await user.client.post("/api/deposit", json=body, headers=ASYNC)
            assert accepted.status_code == 202
            location = accepted.headers["location"]
            shown = await finally_of(user, location, "rejected")
            assert shown["reason"] == "quarantined"
            assert (await other.client.get(location)).status_code == 404
            assert await user.balance(number) == "0.00"
