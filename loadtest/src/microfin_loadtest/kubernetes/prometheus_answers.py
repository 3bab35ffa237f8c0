"""Asks a Prometheus. It runs as a program in a pod that can reach the server, prints one JSON
object, and uses only the standard library:

    python -c "$(cat prometheus_answers.py)" http://prometheus:9090/api/v1/query '{"up": "up"}'
"""

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

_PATIENCE_SECONDS = 30.0
"""A new pod's network policies may need some seconds until they allow its connections."""
_STARTING = 500
"""With this status or a higher one the server may answer later, for example while it starts."""


def ask(url: str, query: str) -> list[dict[str, Any]]:
    """Return a query's result: labels and value of each series.

    Raises ValueError if the server refuses the query, OSError if it does not answer (yet).
    """
    form = urllib.parse.urlencode({"query": query}).encode()
    try:
        with urllib.request.urlopen(url, data=form, timeout=10) as answer:  # noqa: S310 - the user's
            result = json.load(answer)
    except urllib.error.HTTPError as error:
        reason = f"{error.code} {error.read().decode(errors='replace')[:300]}"
        raise (OSError if error.code >= _STARTING else ValueError)(reason) from error
    return [
        {"labels": series["metric"], "value": float(series["value"][1])}
        for series in result["data"]["result"]
    ]


def ask_patiently(url: str, queries: dict[str, str], patience: float) -> dict[str, Any]:
    """Return each query's result by its name."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return {name: ask(url, query) for name, query in queries.items()}
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


if __name__ == "__main__":
    try:
        print(json.dumps({"found": ask_patiently(sys.argv[1], json.loads(sys.argv[2]),
                                                 _PATIENCE_SECONDS)}))  # fmt: skip
    except OSError as error:
        sys.exit(f"{sys.argv[1]} does not answer: {error}")
    except (KeyError, TypeError, ValueError) as error:
        sys.exit(f"{sys.argv[1]} does not accept the question: {error}")
