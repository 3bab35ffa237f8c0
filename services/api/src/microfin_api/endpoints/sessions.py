"""A user's own sessions and password: listing and ending sessions, changing the password."""

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from microfin_api.http.answers import (
    PasswordChanged,
    SessionList,
    SessionView,
    SignedOut,
    answer,
    moment,
)
from microfin_api.http.bodies import PasswordBody, read_body, read_new_password
from microfin_api.http.problems import Problem
from microfin_api.people.session_store import StoredSession
from microfin_api.people.users import User
from microfin_api.services import Services


async def change_password(request: Request, services: Services) -> Response:
    """Change the password and end all sessions; the request's own goes on under a new id."""
    services.origins.check(request, services.sessions)
    session = await services.sessions.require(request)
    body = await read_body(request, PasswordBody, services.settings.body_limit)
    new_password = read_new_password(body.new_password)
    user = await _user_with_password(services, session.user, body.current_password)
    password_hash = await services.passwords.hash(new_password)
    changed = await services.sessions.change_password(user.id, user.epoch, password_hash)
    if changed is None:  # somebody else changed it meanwhile
        raise Problem("wrong_password")
    view = PasswordChanged(
        session_id=changed.session_id, effective_within_seconds=changed.effective_within
    )
    cookie = services.sessions.cookie(changed.session_id, request)
    response = answer(view, headers={"Set-Cookie": cookie})
    # The new password makes all devices unknown: this one becomes known again.
    known = services.devices.cookie(request, replace(user, password_hash=password_hash))
    response.headers.append("Set-Cookie", known)
    return response


async def _user_with_password(services: Services, identity: str, password: str) -> User:
    """Return the user if the password fits. A wrong one counts as a failed sign-in."""
    user = await services.users.with_id(identity)
    if user is None:
        raise Problem("not_signed_in", headers={"WWW-Authenticate": "Bearer"})
    with services.sign_in_rate.attempt("too_many_sign_ins") as attempt:
        await attempt.acquire(services.sign_in_rate.of_user(user.id))
        fits = await services.passwords.verify(user.password_hash, password, "sign_in")
        attempt.failed = not fits
    if not fits:
        raise Problem("wrong_password")
    return user


async def list_sessions(request: Request, services: Services) -> Response:
    """List the user's sessions, as PostgreSQL has them."""
    session = await services.sessions.require(request)
    own = services.sessions.hashes_of(request)
    stored = await services.sessions.stored(session.user)
    return answer(SessionList(sessions=[_view(it, own) for it in stored]))


def _view(stored: StoredSession, own: frozenset[bytes]) -> SessionView:
    return SessionView(
        id=stored.public_id,
        created_at=moment(stored.created_at),
        last_used_at=moment(stored.last_used_at),
        expires_at=moment(stored.expires_at),
        current=stored.token_hash in own,
    )


async def end_session(request: Request, services: Services) -> Response:
    """End one of the user's sessions."""
    services.origins.check(request, services.sessions)
    session = await services.sessions.require(request)
    wanted = request.path_params["session"]
    stored = await services.sessions.stored(session.user)
    found = [it.token_hash for it in stored if it.public_id == wanted]
    if not found:
        raise Problem("session_not_found")
    within = await services.sessions.end_hashes(found)
    view = SignedOut(signed_out=True, effective_within_seconds=within)
    headers = {}
    if services.sessions.hashes_of(request).issuperset(found):
        headers["Set-Cookie"] = services.sessions.cookie("", request)
    return answer(view, headers=headers)
