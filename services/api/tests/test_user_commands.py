"""`microfin user disable|enable|sign-out|set-password`, felt by who is signed in."""

import pytest

from support.api_under_test import PASSWORD, Api, Ledger, User
from support.cli import Ran, microfin
from support.signed_in import NEW_PASSWORD, sign_in, status_of, thief_of


async def administer(ledger: Ledger, *arguments: str, typed: str = "", redis: bool = True) -> Ran:
    environment = ledger.environment("operator")
    if not redis:
        environment["MICROFIN_REDIS"] = "redis://127.0.0.1:1"
    return await microfin(environment, "user", *arguments, "--json", typed=typed)


async def test_a_disabled_user_is_out_and_stays_out(ledger: Ledger, api: Api, user: User) -> None:
    stolen = await thief_of(api, user)
    disabled = await administer(ledger, "disable", user.email.upper())
    assert disabled.code == 0, disabled.errors
    assert disabled.json() == {"id": user.id, "ended_sessions": 2, "effective": "at once"}
    assert await status_of(api, stolen) == 401
    assert await status_of(api, user.session_id) == 401
    refused = await sign_in(api, user)
    unknown = await sign_in(
        api, User(user.client, {"userId": "", "email": "no@one.example", "sessionId": ""})
    )
    assert refused.status_code == unknown.status_code == 401
    answered, to_a_stranger = refused.json(), unknown.json()
    assert answered.pop("requestId") != to_a_stranger.pop("requestId")
    assert answered == to_a_stranger  # a stranger learns nothing
    assert (await administer(ledger, "enable", user.id)).json() == {"id": user.id}
    assert await status_of(api, stolen) == 401
    assert (await sign_in(api, user)).status_code == 200


async def test_a_user_is_signed_out_everywhere(ledger: Ledger, api: Api, user: User) -> None:
    stolen = await thief_of(api, user)
    assert (await administer(ledger, "sign-out", user.email)).code == 0
    assert await status_of(api, stolen) == 401
    assert (await sign_in(api, user)).status_code == 200


async def test_a_user_gets_another_password(ledger: Ledger, api: Api, user: User) -> None:
    stolen = await thief_of(api, user)
    set_password = ["set-password", user.email, "--password-stdin"]
    assert (await administer(ledger, *set_password, typed="short\n")).code == 2
    assert await status_of(api, stolen) == 200
    assert (await administer(ledger, *set_password, typed=f"{NEW_PASSWORD}\n")).code == 0
    assert await status_of(api, stolen) == 401
    assert (await sign_in(api, user, PASSWORD)).status_code == 401
    assert (await sign_in(api, user, NEW_PASSWORD)).status_code == 200


async def test_without_redis_it_says_when(ledger: Ledger, api: Api, user: User) -> None:
    result = await administer(ledger, "sign-out", user.email, redis=False)
    assert result.code == 0, result.errors
    assert result.json()["effective"] == "within 65 seconds"


@pytest.mark.parametrize("command", ["disable", "enable", "sign-out"])
async def test_an_unknown_user_is_refused(ledger: Ledger, command: str) -> None:
    for who in ("no@one.example", "0" * 32):
        result = await administer(ledger, command, who)
        assert result.code == 1
        assert "There is no user" in result.errors
