"""Devices that a user has signed in with before, recognised by a cookie that we signed.

Nothing is stored for it. The cookie names the user, and its tag covers the hash of the password: a
new password makes all devices unknown. It lets nobody in. It only prevents that strangers, by their
attempts at a user's e-mail address, shut out the user's own devices.
"""

import secrets
from typing import Final

from starlette.requests import Request

from microfin.process.settings import ApiSettings
from microfin_api.http.client_address import TrustedProxies
from microfin_api.people.users import User
from microfin_api.signing import Signer

COOKIE: Final = "deviceId"
_RANDOM_BYTES: Final = 9
_LONGEST: Final = 100
_SECONDS: Final = 400 * 24 * 60 * 60
"""As long as browsers keep a cookie."""


class Devices:
    """Signs and recognises devices' cookies."""

    def __init__(self, settings: ApiSettings, proxies: TrustedProxies) -> None:
        self._signer = Signer(settings, "microfin-device")
        self._cookie_secure = settings.cookie_secure
        self._proxies = proxies

    def claim_of(self, request: Request) -> str:
        """Return the device that the request claims to come from, or ''. Nothing is verified."""
        device = request.cookies.get(COOKIE, "")
        return device if device.isascii() and len(device) <= _LONGEST else ""

    def is_known(self, device: str, user: User) -> bool:
        """Return whether `user` has signed in with this device, by the current password."""
        named, _, tag = device.rpartition(".")
        return named.startswith(f"{user.id}.") and self._signer.is_tag(tag, _signed(named, user))

    def cookie(self, request: Request, user: User) -> str:
        """Return the Set-Cookie that makes the device of this request known to `user`.

        Browsers send it only to the sign-in, so that no other request carries it.
        """
        device = self.claim_of(request)
        if not self.is_known(device, user):
            named = f"{user.id}.{secrets.token_urlsafe(_RANDOM_BYTES)}"
            device = f"{named}.{self._signer.tag(_signed(named, user))}"
        secure = self._cookie_secure == "always" or (
            self._cookie_secure == "auto" and self._proxies.scheme_of(request) == "https"
        )
        return (
            f"{COOKIE}={device}; Path=/api/signin; Max-Age={_SECONDS}; HttpOnly; SameSite=Lax"
            f"{'; Secure' if secure else ''}"
        )


def _signed(named: str, user: User) -> str:
    return f"{named} {user.password_hash}"
