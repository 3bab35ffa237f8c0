"""`python -m microfin_local.benchmarks.wake_ups.client HOST PORT SECONDS`: one connection deposits.

It sends a deposit, waits for the answer, and pauses until everything sleeps again. It prints the
milliseconds of each deposit.
"""

import http.client
import json
import sys
import time
from typing import Any
from uuid import uuid4

_WARM_UP = 200  # deposits
_PAUSE = 0.02  # seconds


class _Bank:
    def __init__(self, host: str, port: int) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=30)
        self._headers = {"Content-Type": "application/json"}
        login = {"email": f"{uuid4().hex}@example.com", "password": uuid4().hex}
        token = self.ask("/api/signup", {"name": "Anna", **login})["sessionId"]
        self._headers["Authorization"] = f"Bearer {token}"
        self._account = self.ask("/api/accounts", {"currency": "EUR"})["accountNumber"]

    def ask(self, path: str, body: dict[str, str]) -> Any:
        self._connection.request("POST", path, json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status not in (200, 201):
            raise RuntimeError(f"{path} was answered {answer.status}: {text.decode()}")
        return json.loads(text)

    def deposit(self) -> None:
        self.ask("/api/deposit", {"accountNumber": self._account, "amount": "1.00"})


def main() -> None:
    """Deposit for as long as the command line says."""
    host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    bank = _Bank(host, port)
    for _ in range(_WARM_UP):
        bank.deposit()
    print("warm", flush=True)
    took, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        bank.deposit()
        took.append(round(1000 * (time.monotonic() - began), 3))
        time.sleep(_PAUSE)
    print(json.dumps(took))


if __name__ == "__main__":
    main()
