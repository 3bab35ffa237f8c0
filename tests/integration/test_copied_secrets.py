"""The pod that copies Kafka's Secrets, against an API server that changes its mind.

The end-to-end tests run it on a real one.
"""

import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest

from support.certificates import Authority

SCRIPT: Final = Path(__file__).parents[2] / "charts/microfin/files/copy_secrets.py"
PATIENCE: Final = 20


class ApiServer(ThreadingHTTPServer):
    """Answers watches with `events` until one is None, and takes down what is patched."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        authority = Authority("kubernetes")
        issued = authority.issue("kubernetes", "127.0.0.1")
        folder.joinpath("token").write_text("a token")
        folder.joinpath("ca.crt").write_bytes(authority.certificate)
        folder.joinpath("pair.pem").write_bytes(issued.key + issued.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "pair.pem")
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.refuses = threading.Event()
        self.watches: Queue[str] = Queue()
        self.events: Queue[dict[str, Any] | None] = Queue()
        self.patches: Queue[tuple[str, Any]] = Queue()

    def show(self, kind: str, **data: str) -> None:
        """Let the watch see an event."""
        self.events.put({"type": kind, "object": {"data": data}})


class Request(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        if self.headers["Authorization"] != "Bearer a token" or self.server.refuses.is_set():
            self.send_error(403, "this account may not watch")
            return
        place = urlsplit(self.path)
        self.server.watches.put(f"{place.path} {parse_qs(place.query)['fieldSelector'][0]}")
        self.send_response(200)
        self.end_headers()
        while (event := self.server.events.get()) is not None:
            self.wfile.write(json.dumps(event).encode() + b"\n")

    def do_PATCH(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.patches.put((self.path, json.loads(body)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(tmp_path) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.events.put(None)
        server.shutdown()


class Copies:
    """The program, with the files of a pod's account in a folder of the test."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        text = SCRIPT.read_text(encoding="utf-8")
        text = text.replace("/var/run/secrets/kubernetes.io/serviceaccount", str(folder))
        self.ready = folder / "copied"
        text = text.replace('"/tmp/copied"', repr(str(self.ready))).replace(
            "_PAUSE = 2", "_PAUSE = 0.1"
        )
        address = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(server.server_port),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", text, "kafka", "bank", "microfin-api=bank-microfin-api"],
            env=address, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def says(self, words: str) -> None:
        """Wait until it prints a line with these words."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if words in line:
                return
        raise AssertionError(f"it ended and did not say {words!r}")

    def end(self) -> int:
        """Ask it to end, and return how it did."""
        self._process.terminate()
        return self._process.wait(PATIENCE)


@pytest.fixture
def copies(server: ApiServer, tmp_path: Path) -> Iterator[Copies]:
    """The program, against a server that first refuses it."""
    server.refuses.set()
    copies = Copies(server, tmp_path)
    copies.says("kafka/bank-microfin-api is not followed, trying again: HTTP Error 403")
    server.refuses.clear()
    yield copies
    assert copies.end() == 0


def until_exists(path: Path) -> bool:
    """Wait until a file is there."""
    ends = time.monotonic() + PATIENCE
    while not path.exists() and time.monotonic() < ends:
        time.sleep(0.05)
    return path.exists()


def copied(server: ApiServer) -> Any:
    """Return what is written next into the copy."""
    path, (change,) = server.patches.get(timeout=PATIENCE)
    assert path == "/api/v1/namespaces/bank/secrets/microfin-api"
    assert (change["op"], change["path"]) == ("add", "/data")
    return change["value"]


def test_a_copy_follows_its_original_and_outlives_it(server: ApiServer, copies: Copies) -> None:
    watch = server.watches.get(timeout=PATIENCE)
    assert watch == "/api/v1/namespaces/kafka/secrets metadata.name=bank-microfin-api"
    server.show("ADDED", **{"user.crt": "b25l"})
    assert copied(server) == {"user.crt": "b25l"}
    copies.says("microfin-api is a copy of kafka/bank-microfin-api")
    assert until_exists(copies.ready)
    server.show("MODIFIED", **{"user.crt": "dHdv", "user.key": "a2V5"})
    assert copied(server) == {"user.crt": "dHdv", "user.key": "a2V5"}
    server.show("DELETED", **{"user.crt": "dHdv"})
    copies.says("was deleted; its copy microfin-api stays")
    server.events.put(None)
    # The watch ended, and the next one begins with what is there then.
    server.watches.get(timeout=PATIENCE)
    server.show("ADDED", **{"user.crt": "dHJvaXM="})
    assert copied(server) == {"user.crt": "dHJvaXM="}


def test_an_end_of_the_watch_with_an_error_is_no_change(server: ApiServer, copies: Copies) -> None:
    server.watches.get(timeout=PATIENCE)
    expired = {"message": "too old resource version"}
    server.events.put({"type": "ERROR", "object": expired})
    server.events.put(None)
    server.watches.get(timeout=PATIENCE)
    server.show("ADDED", **{"user.crt": "b25l"})
    assert copied(server) == {"user.crt": "b25l"}
    copies.says("trying again: too old resource version")
