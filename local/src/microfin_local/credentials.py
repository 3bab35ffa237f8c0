"""Passwords and the signing secrets of one platform, made at its first start."""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from microfin_local.files import PRIVATE, write_atomically

OWNER = "microfin"
WORKER = "microfin_worker"
ROLES = (WORKER, "microfin_api", "microfin_auditor")
SUPERUSER = "postgres"


@dataclass(frozen=True, repr=False)
class Credentials:
    """`passwords` by role of the database; `signing` is the API's MICROFIN_SECRET, `sealing` the
    MICROFIN_CACHE_SECRET of workers and API."""

    passwords: dict[str, str]
    signing: str
    sealing: str


def load_or_make(path: Path) -> Credentials:
    """Return the credentials in this file, which only its owner may read. Make missing ones."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    made = Credentials(
        **{
            "passwords": {role: secrets.token_hex(16) for role in (SUPERUSER, OWNER, *ROLES)},
            "signing": secrets.token_hex(32),
            "sealing": secrets.token_hex(32),
            **kept,
        }
    )
    if asdict(made) == kept:
        return made
    write_atomically(path, json.dumps(asdict(made), indent=2), PRIVATE)
    return made
