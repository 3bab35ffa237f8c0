"""The text that is printed when the platform is ready: addresses, and a session to paste."""

from pathlib import Path

from microfin_local.endpoints import ENDPOINTS_FILE, ENVIRONMENT_FILE, Endpoints

_SESSION = r"""
API={api} JAR=$(mktemp)
call() {{ curl -sS -b "$JAR" -c "$JAR" -H 'Content-Type: application/json' "$@"; }}
field() {{ sed -E "s/.*\"$1\": *\"?([^\",}}]+).*/\1/"; }}

call $API/api/signup -d '{{"name": "Ada", "email": "ada-'$(date +%s%N)'@example.com", "password": "correct horse battery staple"}}'; echo
FIRST=$(call $API/api/accounts -d '{{}}' | field accountNumber)
SECOND=$(call $API/api/accounts -d '{{}}' | field accountNumber)
call $API/api/deposit -d '{{"accountNumber": "'$FIRST'", "amount": "100.00"}}'; echo
call $API/api/transfer -d '{{"senderAccountNumber": "'$FIRST'", "receiverAccountNumber": "'$SECOND'", "amount": "25.50"}}'; echo
call $API/api/accounts/$SECOND; echo
"""  # noqa: E501 - commands to paste stay on their line.


def shell_session(endpoints: Endpoints) -> str:
    """Return commands for a shell that sign up, open two accounts and move money."""
    return _SESSION.format(api=endpoints.api).strip()


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def where_things_are(state: Path, endpoints: Endpoints) -> str:
    """Return all addresses, and the places of logs, data and passwords."""
    rows = [
        ("API (nginx)", endpoints.api and f"{endpoints.api}   documentation: {endpoints.api}/docs"),
        ("API processes", " ".join(endpoints.apis)),
        ("workers", " ".join(endpoints.workers)),
        ("PostgreSQL", " ".join(map(_without_password, endpoints.postgres_shards))),
        ("PgBouncer", " ".join(map(_without_password, endpoints.pgbouncer))),
        ("Kafka", endpoints.kafka),
        ("Redis Cluster", " ".join(endpoints.redis)),
        ("logs", str(state / "logs")),
        ("data", str(state)),
        ("endpoints", f"{state / ENDPOINTS_FILE} (with passwords)"),
        ("for `microfin`", f"source {state / ENVIRONMENT_FILE}"),
    ]
    return "\n".join(f"  {name:<15}{text}" for name, text in rows if text)


def summary(state: Path, endpoints: Endpoints, how_to_stop: str) -> str:
    """Return the text that is printed when the platform is ready; the session comes last."""
    return "\n".join(
        [
            f"microfin is ready. {how_to_stop} stops it.",
            "",
            where_things_are(state, endpoints),
            "",
            "Paste this into a shell to move some money:",
            "",
            shell_session(endpoints),
            "",
        ]
    )
