"""Passwords and the signing secret of one platform, made at its first start."""

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
    """`passwords` by role of the database; `signing` is the API's MICROFIN_SECRET."""

    passwords: dict[str, str]
    signing: str


def load_or_make(path: Path) -> Credentials:
    """Return the credentials in this file (only we may read it), making them if it is missing."""
    if path.exists():
        return Credentials(**json.loads(path.read_text()))
    made = Credentials(
        passwords={role: secrets.token_hex(16) for role in (SUPERUSER, OWNER, *ROLES)},
        signing=secrets.token_hex(32),
    )
    write_atomically(path, json.dumps(asdict(made), indent=2), PRIVATE)
    return made
