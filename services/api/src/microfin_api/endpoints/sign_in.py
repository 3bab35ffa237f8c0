"""Signing up, in and out, and who is signed in."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from microfin.people.identity import email_form
from microfin_api.http.answers import Me, SignedIn, SignedOut, answer
from microfin_api.http.bodies import (
    SignInBody,
    SignUpBody,
    read_body,
    read_email,
    read_name,
    read_new_email,
    read_new_password,
)
from microfin_api.http.parameters import read_flag
from microfin_api.http.problems import Problem
from microfin_api.people.hashing_queue import Lane
from microfin_api.people.sign_in_rate import Attempt
from microfin_api.people.users import User, new_user
from microfin_api.services import Services


async def sign_up(request: Request, services: Services) -> Response:
    """Add a user and sign in, in one transaction.

    A repeat, whose first answer may have been lost, is a sign-in by its password, and counts as
    one.
    """
    services.origins.check(request)
    body = await read_body(request, SignUpBody, services.settings.body_limit)
    name, forms = read_name(body.name), read_new_email(body.email)
    password = read_new_password(body.password)
    services.passwords.require_room("sign_up")
    await services.sign_in_rate.count_sign_up(services.proxies.client_of(request))
    if await services.users.with_email(forms) is None:
        user = new_user(name, forms[-1], await services.passwords.hash(password, "sign_up"))
        session_id = await _add(services, user, forms)
        if session_id is not None:
            return _signed_in(request, services, user, session_id)
    with services.sign_in_rate.attempt("too_many_sign_ins") as attempt:
        known = await _user_of(request, services, attempt, forms, password, "sign_up")
        if known is None:
            raise Problem("email_taken")
        session_id = await services.sessions.open(known.id, known.epoch)
    return _signed_in(request, services, known, session_id)


async def _add(services: Services, user: User, forms: Sequence[str]) -> str | None:
    """Add the user and a session; return the session's id, None if the address is in use."""
    async with services.pools[0].acquire() as connection, connection.transaction():
        if not await services.users.add(connection, user, forms):
            return None
        return await services.sessions.open_within(connection, user.id)


async def sign_in(request: Request, services: Services) -> Response:
    """Open a session. Unknown addresses and wrong passwords get one answer, in the same time."""
    services.origins.check(request)
    body = await read_body(request, SignInBody, services.settings.body_limit)
    forms, password = read_email(body.email), body.password
    # The attempt ends when the session is open: then nobody waits for what Redis learns of it.
    with services.sign_in_rate.attempt("too_many_sign_ins") as attempt:
        user = await _user_of(request, services, attempt, forms, password, "sign_in")
        if user is None:
            raise Problem("sign_in_failed", headers={"WWW-Authenticate": "Bearer"})
        if services.passwords.is_outdated(user.password_hash):
            user = await services.users.replace_hash(user, await services.passwords.hash(password))
        session_id = await services.sessions.open(user.id, user.epoch)
    return _signed_in(request, services, user, session_id)


async def _user_of(
    request: Request,
    services: Services,
    attempt: Attempt,
    forms: Sequence[str],
    password: str,
    lane: Lane,
) -> User | None:
    """Return the user with this address and password, None if one of them does not fit.

    Raises `Problem` if too many have failed. Only a device that claims to be known makes us read
    the user before all limits are checked.
    """
    services.passwords.require_room(lane)
    rate, address = services.sign_in_rate, services.proxies.client_of(request)
    strangers = rate.of_stranger(email_form(forms[0]), address)
    if device := services.devices.claim_of(request):
        await attempt.acquire(rate.of_address(address))
        user = await services.users.with_email(forms)
        known = user is not None and services.devices.is_known(device, user)
        await attempt.acquire(rate.of_device(device) if known else strangers)
    else:
        await attempt.acquire([*rate.of_address(address), *strangers])
        user = await services.users.with_email(forms)
    stored = user.password_hash if user else None
    fits = await services.passwords.verify(stored, password, lane)
    attempt.failed = not fits
    return user if fits else None


def _signed_in(
    request: Request, services: Services, user: User, session_id: str | None
) -> Response:
    if session_id is None:  # disabled, or given another password, since its password was verified
        raise Problem("sign_in_failed", headers={"WWW-Authenticate": "Bearer"})
    view = SignedIn(user_id=user.id, name=user.name, email=user.email, session_id=session_id)
    response = answer(view, headers={"Set-Cookie": services.sessions.cookie(session_id, request)})
    response.headers.append("Set-Cookie", services.devices.cookie(request, user))
    return response


async def sign_out(request: Request, services: Services) -> Response:
    """End the request's session, or with `everywhere` all of its user."""
    services.origins.check(request, services.sessions)
    if read_flag(request, "everywhere"):
        session = await services.sessions.require(request)
        within = await services.sessions.end_all(session.user)
    else:
        within = await services.sessions.end(services.sessions.require_credential(request))
    view = SignedOut(signed_out=True, effective_within_seconds=within)
    return answer(view, headers={"Set-Cookie": services.sessions.cookie("", request)})


async def me(request: Request, services: Services) -> Response:
    """Show who is signed in."""
    session = await services.sessions.require(request)
    user = await services.users.with_id(session.user)
    if user is None:
        raise Problem("not_signed_in", headers={"WWW-Authenticate": "Bearer"})
    return answer(Me(user_id=user.id, name=user.name, email=user.email))
