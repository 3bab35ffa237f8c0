"""Signing up, in and out, and who is signed in."""

from starlette.requests import Request
from starlette.responses import Response

from microfin_api.answers import Me, SignedIn, SignedOut, answer, effective_within
from microfin_api.bodies import (
    SignInBody,
    SignUpBody,
    read_body,
    read_email,
    read_name,
    read_new_password,
)
from microfin_api.parameters import read_flag
from microfin_api.parts import Parts
from microfin_api.problems import Problem
from microfin_api.users import User


async def sign_up(request: Request, parts: Parts) -> Response:
    """Add a user and sign in."""
    parts.origins.check(request)
    body = await read_body(request, SignUpBody, parts.settings.body_limit)
    name, email = read_name(body.name), read_email(body.email)
    password_hash = await parts.passwords.hash(read_new_password(body.password))
    user = await parts.users.add(name, email, password_hash)
    if user is None:
        raise Problem("email_taken")
    return await _signed_in(request, parts, user)


async def sign_in(request: Request, parts: Parts) -> Response:
    """Open a session. An unknown address and a wrong password get one answer, in one time."""
    parts.origins.check(request)
    body = await read_body(request, SignInBody, parts.settings.body_limit)
    email, address = read_email(body.email), parts.proxies.client_of(request)
    await parts.sign_in_rate.begin(email, address)
    try:
        user = await parts.users.with_email(email)
        fits = await parts.passwords.verify(user.password_hash if user else None, body.password)
    except Exception:
        parts.sign_in_rate.take_back(email, address)
        raise
    if user is None or not fits:
        await parts.sign_in_rate.note_failure(email, address)
        raise Problem("sign_in_failed", headers={"WWW-Authenticate": "Bearer"})
    parts.sign_in_rate.take_back(email, address)
    if parts.passwords.is_outdated(user.password_hash):
        await parts.users.replace_hash(user, await parts.passwords.hash(body.password))
    return await _signed_in(request, parts, user)


async def _signed_in(request: Request, parts: Parts, user: User) -> Response:
    session_id = await parts.sessions.open(user.id, user.epoch)
    if session_id is None:  # disabled, or given another password, since its password was verified
        raise Problem("sign_in_failed", headers={"WWW-Authenticate": "Bearer"})
    view = SignedIn(user_id=user.id, name=user.name, email=user.email, session_id=session_id)
    return answer(view, headers={"Set-Cookie": parts.sessions.cookie(session_id, request)})


async def sign_out(request: Request, parts: Parts) -> Response:
    """End the request's session, or with `everywhere` all of its user."""
    parts.origins.check(request)
    if read_flag(request, "everywhere"):
        session = await parts.sessions.require(request)
        certain = await parts.sessions.end_all(session.user)
    else:
        certain = await parts.sessions.end(parts.sessions.require_credential(request))
    view = SignedOut(signed_out=True, effective_within_seconds=effective_within(certain))
    return answer(view, headers={"Set-Cookie": parts.sessions.cookie("", request)})


async def me(request: Request, parts: Parts) -> Response:
    """Tell who is signed in."""
    session = await parts.sessions.require(request)
    user = await parts.users.with_id(session.user)
    if user is None:
        raise Problem("not_signed_in", headers={"WWW-Authenticate": "Bearer"})
    return answer(Me(user_id=user.id, name=user.name, email=user.email))
