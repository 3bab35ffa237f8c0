"""The program of `helm test`: it moves money through the API and checks every balance.

A user signs up, opens four accounts (so that several partitions are very likely involved), deposits
to one account, and transfers from each account to the next. If a balance is wrong, the program ends
with 1 and says why.

    python move_money.py URL [HOST]

HOST is the host name in the requests, if it is not that of the URL. It is for an ingress whose name
no resolver knows.
"""

import json
import sys
import time
import urllib.error
import urllib.request
import uuid
from decimal import Decimal
from itertools import pairwise

_PATIENCE = 30.0


class Bank:
    """One user of the API."""

    def __init__(self, url: str, host: str = "") -> None:
        self._url = url
        self._host = host
        self._session = ""

    def sign_up(self) -> None:
        """Sign up as a new user, and stay signed in."""
        email = f"helm-test-{uuid.uuid4().hex}@example.com"
        body = {"name": "Helm Test", "email": email, "password": uuid.uuid4().hex}
        self._session = str(self.ask("POST", "/api/signup", body)["sessionId"])

    def ask(
        self, method: str, path: str, body: dict[str, object] | None = None
    ) -> dict[str, object]:
        """Return the API's answer; wait if an operation is not final yet."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if self._host:
            headers["Host"] = self._host
        if self._session:
            headers["Authorization"] = f"Bearer {self._session}"
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=_PATIENCE) as response:
            answer: dict[str, object] = json.load(response)
            if response.status != 202:
                return answer
            later = response.headers["Location"]
        time.sleep(0.5)
        return self._wait_for(later)

    def _wait_for(self, path: str) -> dict[str, object]:
        deadline = time.monotonic() + _PATIENCE
        while (answer := self.ask("GET", path))["status"] in ("accepted", "in_transit"):
            if time.monotonic() > deadline:
                sys.exit(f"{path} is not decided after {_PATIENCE:.0f} s: {answer}")
            time.sleep(0.5)
        return answer


def move_money(bank: Bank) -> None:
    """Open accounts, send 100.00 from account to account and check every balance."""
    bank.sign_up()
    accounts = [str(bank.ask("POST", "/api/accounts", {})["accountNumber"]) for _ in range(4)]
    print("opened", *accounts)
    bank.ask("POST", "/api/deposit", {"accountNumber": accounts[0], "amount": "100.00"})
    for index, (sender, receiver) in enumerate(pairwise(accounts)):
        body = {
            "senderAccountNumber": sender,
            "receiverAccountNumber": receiver,
            "amount": f"{90 - 10 * index}.00",
        }
        answer = bank.ask("POST", "/api/transfer", body)
        print("transferred", body["amount"], answer["status"])
    for number, expected in zip(accounts, ("10.00", "10.00", "10.00", "70.00"), strict=True):
        balance = bank.ask("GET", f"/api/accounts/{number}")["balance"]
        if Decimal(str(balance)) != Decimal(expected):
            sys.exit(f"account {number} has {balance}, and should have {expected}")
    print("all balances are right")


def main() -> None:
    """Move money at the API whose address is the first argument."""
    try:
        url, *host = sys.argv[1:]
        move_money(Bank(url.rstrip("/"), *host))
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.url} answered {error.code}: {error.read().decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"the API does not answer: {error}")


if __name__ == "__main__":
    main()
