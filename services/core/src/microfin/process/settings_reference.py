"""Writes settings.md from the classes of the settings (`make reference`)."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, get_args

from pydantic.fields import FieldInfo

from microfin.process.settings import PREFIX, ApiSettings, CommonSettings, WorkerSettings

_START: Final = """\
# Settings

<!-- Made from services/core/src/microfin/process/settings.py by `make reference`; a test fails
if it is out of date. -->

Every process reads its settings from environment variables, once, when it starts. Each setting can
come from a file instead: if `NAME` is not set, `NAME_FILE` names a file, and the content of that
file, without the white space around it, is the value. That is for secrets: with
`MICROFIN_SECRET_FILE=/run/secrets/api` the secret is not in the environment. If both are set, the
variable wins. Names that no process knows are ignored.

Some settings are renewed. A process reads these again for every new connection: certificates and
keys, and the URLs in `MICROFIN_DATABASES_FILE` and `MICROFIN_ARCHIVES_FILE` (of these only user and
password; another place needs a restart) and in `MICROFIN_REDIS_FILE`.

A process that cannot use its settings says why and ends: the API with exit code 1, a worker and
`microfin` with 2. `make run` and `make start` write all settings that connect the processes, and
pass other `MICROFIN_…` variables on to the workers and the API.
"""

_SECTIONS: Final = (
    ("All processes", "Workers, API processes and the command line `microfin` read these.", None),
    ("Worker", "Only workers read these.", WorkerSettings),
    (
        "API",
        "API processes read these; `microfin user` reads `MICROFIN_ARGON2_…` too.",
        ApiSettings,
    ),
)

_KINDS: Final[dict[object, str]] = {int: "whole number", float: "number", str: "text"}
_LEAST: Final = {"ge": "at least", "gt": "more than"}


def settings_markdown() -> str:
    """Return `docs/reference/settings.md`."""
    sections = [_START]
    for title, readers, settings in _SECTIONS:
        fields = (settings or CommonSettings).model_fields
        own = {
            name: field
            for name, field in fields.items()
            if settings is None or name not in CommonSettings.model_fields
        }
        rows = "\n".join(_row(name, field) for name, field in own.items())
        sections.append(
            f"\n## {title}\n\n{readers}\n\n| name | default | values | meaning |\n"
            f"|---|---|---|---|\n{rows}\n"
        )
    return "".join(sections)


def _row(name: str, field: FieldInfo) -> str:
    default = "" if field.default in (None, "") else f"`{field.default}`"
    return f"| `{PREFIX}{name.upper()}` | {default} | {_values(field)} | {field.description} |"


def _values(field: FieldInfo) -> str:
    """Say which values a setting may have."""
    types = [member for member in get_args(field.annotation) if member is not type(None)]
    if types and all(isinstance(member, str) for member in types):
        return ", ".join(f"`{member}`" for member in types)
    kind = types[0] if types else field.annotation
    return ", ".join([_KINDS[kind], *_bounds(field.metadata)])


def _bounds(constraints: Iterable[object]) -> Iterable[str]:
    for constraint in constraints:
        for attribute, words in _LEAST.items():
            bound = getattr(constraint, attribute, None)
            if bound is not None:
                yield f"{words} {bound}"


def main() -> None:
    """Write the file into the folder named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m microfin.process.settings_reference docs/reference")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.md").write_text(settings_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
