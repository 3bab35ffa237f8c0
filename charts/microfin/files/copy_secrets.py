"""Copies Secrets of another namespace into the release's, and again at once when they change.

    python copy_secrets.py NAMESPACE RELEASE_NAMESPACE COPY=ORIGINAL ...

It runs until it is ended. The first one is copied before the others. An empty file /tmp/copied says
that all have been copied.
"""

import json
import os
import signal
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_WATCH = 60  # seconds; then it asks anew, which also sets back a copy that somebody changed
_PAUSE = 2


class Copy(threading.Thread):
    """Follows one Secret."""

    def __init__(self, source: str, target: str, names: str) -> None:
        super().__init__(daemon=True)
        self._copy, _, self._original = names.partition("=")
        self._source, self._target = source, target
        self.made = threading.Event()

    def run(self) -> None:
        """Copy it whenever it changes."""
        while True:
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 - a thread that ended would be missed by nobody
                say(f"{self._source}/{self._original} is not followed, trying again: {error}")
                time.sleep(_PAUSE)

    def _follow(self) -> None:
        query = f"watch=1&fieldSelector=metadata.name={self._original}&timeoutSeconds={_WATCH}"
        for line in request("GET", f"/api/v1/namespaces/{self._source}/secrets?{query}"):
            event = json.loads(line)
            kind, secret = event["type"], event["object"]
            if kind in ("ADDED", "MODIFIED"):
                self._put(secret.get("data") or {})
            elif kind == "DELETED":
                say(f"{self._source}/{self._original} was deleted; its copy {self._copy} stays")
            elif kind == "ERROR":
                raise ValueError(secret.get("message", secret))

    def _put(self, data: dict[str, str]) -> None:
        change = [{"op": "add", "path": "/data", "value": data}]
        path = f"/api/v1/namespaces/{self._target}/secrets/{self._copy}"
        for _ in request("PATCH", path, change):
            pass
        if not self.made.is_set():
            say(f"{self._copy} is a copy of {self._source}/{self._original}")
        self.made.set()


def request(method: str, path: str, body: Any = None) -> Iterator[bytes]:
    """Yield the lines of the API server's answer."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    url = f"https://{f'[{host}]' if ':' in host else host}:{port}{path}"
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, method=method)
    # The account's files are renewed, so they are read each time.
    asked.add_header("Authorization", f"Bearer {(_ACCOUNT / 'token').read_text()}")
    asked.add_header("Content-Type", "application/json-patch+json")
    context = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    # Many clusters' CAs lack an extension that Python 3.13 asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with urllib.request.urlopen(asked, timeout=_WATCH + 10, context=context) as answer:
        yield from answer


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")  # at once, also where threads speak at the same time
    sys.stdout.flush()


def main(source: str, target: str, *names: str) -> None:
    """Copy for ever."""
    copies = [Copy(source, target, it) for it in names]
    for copy in copies:
        copy.start()
        copies[0].made.wait()
    for copy in copies:
        copy.made.wait()
    Path("/tmp/copied").touch()  # noqa: S108 - the pod's own
    threading.Event().wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    main(*sys.argv[1:])
