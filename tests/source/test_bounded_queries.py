"""No query of the API returns more than it says: each has a LIMIT, or a reason why it needs none.

One request must not read or write without end: it would block PostgreSQL, and then the event loop
of its process, from everybody else.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]
API: Final = sorted((REPOSITORY / "services" / "api" / "src").rglob("*.py"))
POSTGRES: Final = REPOSITORY / "services" / "core" / "src" / "microfin" / "postgres"
QUERIES: Final = [
    POSTGRES / f"{name}.py" for name in ("queries", "statements", "archive_reading", "attempts")
]
SQL: Final = re.compile(r"(SELECT|WITH|INSERT|UPDATE|DELETE|COPY|WHERE) \S")
"""How a query begins; a method of HTTP alone is none."""
LIMIT: Final = re.compile(r"\bLIMIT\b")

ONE_ROW_OF_VALUES: Final = "one row, of values"
BY_UNIQUE_KEY: Final = "the condition is a unique key's"

ALLOWED: Final = {
    "SELECT {} FROM legs_of($1::uuid[])":
        "three legs of each operation at most; as many operations as requests are under way, or as "
        "are on a page of them",
    "SELECT number, owner, currency, balance, held, state, seq, version, {} AS opened_at, "
    "{} AS read_at FROM accounts":
        "goes on with one of the WHERE below, or with a page's LIMIT",
    "WHERE number = $1": BY_UNIQUE_KEY,
    "WHERE number = ANY($1::text[])":
        "as many accounts as requests wait for, 500 at most",
    "SELECT last_seq_before($1, 'epoch'::timestamptz + $2::bigint * interval '1 millisecond')":
        "one number; halves an account's volumes, then its numbers there: 62 steps at most",
    "SELECT border.*, coalesce((SELECT seq FROM accounts WHERE number = $1), 0) AS newest":
        f"one row of the account's number: {BY_UNIQUE_KEY}",
    "SELECT border.*, line.* FROM {} {}":
        "a page of entries, which has a LIMIT, and one row of the account's number",
    "SELECT next_offset FROM partitions WHERE partition = $1": BY_UNIQUE_KEY,
    "SELECT ARRAY(SELECT volume FROM archived_volumes) AS volumes,":
        "one row; a volume has millions of outcomes, so there are few",
    "SELECT CASE WHEN EXISTS (SELECT FROM archived_accounts WHERE number = $1) THEN volumes":
        "the same row",
    "SELECT shard, shards, generation, partition_count, intended_generation, "
    "intended_partition_count FROM routing": "routing is one row",
    "INSERT INTO leases (instance, generation, renewed_at) SELECT $1":
        "routing is one row",
    "DELETE FROM leases WHERE instance = $1": BY_UNIQUE_KEY,
    "SELECT user_id, extract(epoch FROM least(expires_at, sessions.created_at + $2 * "
    "interval '1 second'))::bigint AS expires,": BY_UNIQUE_KEY,
    "SELECT open_session(": "one row; at most a thousand sessions end at once",
    "UPDATE sessions SET last_used_at = clock_timestamp(),": BY_UNIQUE_KEY,
    "DELETE FROM sessions WHERE token_hash = ANY($1::bytea[])":
        "the few sessions of one request's cookies, or the one that is ended",
    "SELECT id, name, email, password_hash, session_epoch FROM users WHERE disabled_at IS NULL AND":
        f"goes on with id or email: {BY_UNIQUE_KEY}",
    "INSERT INTO users (id, name, email, password_hash) SELECT $1::uuid,": ONE_ROW_OF_VALUES,
    "UPDATE users SET password_hash = $2 WHERE id = $1": BY_UNIQUE_KEY,
}  # fmt: skip
"""How a query without LIMIT begins, and what bounds it."""


def queries(path: Path) -> Iterator[str]:
    """Yield the texts in a module that begin like SQL, white space made one blank."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    pieces = {id(piece) for node in formatted for piece in node.values}
    texts = [
        "".join(str(it.value) if isinstance(it, ast.Constant) else "{}" for it in node.values)
        for node in formatted
    ]
    texts += [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in pieces
    ]
    for text in texts:
        query = " ".join(text.split())
        if SQL.match(query):
            yield query


def unbounded() -> Iterator[tuple[str, str]]:
    """Yield the place of each query without LIMIT, and the query."""
    for path in (*API, *QUERIES):
        for text in queries(path):
            if not LIMIT.search(text):
                yield str(path.relative_to(REPOSITORY)), text


def test_every_query_of_the_api_is_bounded() -> None:
    strange = [
        f"{where}: {text}"
        for where, text in unbounded()
        if not any(text.startswith(allowed) for allowed in ALLOWED)
    ]
    assert not strange, "give them a LIMIT, or say in ALLOWED what bounds them"


def test_what_is_allowed_is_there() -> None:
    texts = [text for _, text in unbounded()]
    stale = [it for it in ALLOWED if not any(text.startswith(it) for text in texts)]
    assert not stale
