"""What a process says of settings that it cannot use never shows what they hold."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from pydantic import ValidationError

from microfin.process.settings import PREFIX, ApiSettings, CommonSettings, WorkerSettings
from microfin_operator.settings import OperatorSettings
from microfin_tools.cli.failures import reported

CANARY = "hunter2canary"
SECRETS = {
    name for name in ApiSettings.model_fields if name.split("_")[0] in {"databases", "archives"}
}
SECRETS |= {"redis", "secret", "cache_secret"}
MALFORMED_URLS = [
    CANARY,
    f"user:{CANARY}@host/database",
    f"{CANARY}://host/database",
    f"postgresql://user:{CANARY}#x@host:5432/database",
    f"postgresql://user:{CANARY}/x@host:5432/database",
    f"postgresql://user:{CANARY}?x@host:5432/database",
    f"postgresql://user:x@{CANARY}@host:5432/database",
    f"postgresql://user:x@host:{CANARY}/database",
    f"postgresql://user:x@[{CANARY}/database",
    f"postgresql://user:1/{CANARY}@host:5432/database",
]
PROCESSES = [
    ("-m", "microfin_api"),
    ("-m", "microfin_worker"),
    ("-m", "microfin_tools", "audit"),
    ("-m", "microfin_tools", "migrate"),
]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (settings, name)
        for settings in (ApiSettings, WorkerSettings, OperatorSettings)
        for name in settings.model_fields
    ],
    ids=lambda it: it if isinstance(it, str) else it.__name__,
)
def test_no_setting_shows_what_it_holds(
    settings: type[CommonSettings], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = CANARY if name != "secret" else CANARY[:31]
    prefix = str(settings.model_config["env_prefix"])
    monkeypatch.setenv(f"{prefix}{name.upper()}", value)
    said = io.StringIO()
    if settings.model_fields[name].annotation is str and name not in SECRETS:
        assert CANARY in repr(settings())  # any text will do, and it is no secret
        return
    with pytest.raises(ValidationError) as caught:
        settings()
    assert CANARY not in str(caught.value) + repr(caught.value)
    with pytest.raises(typer.Exit), contextlib.redirect_stderr(said), reported():
        settings()
    assert CANARY not in said.getvalue()
    assert name.upper() in said.getvalue()


@pytest.mark.parametrize("url", MALFORMED_URLS)
def test_a_url_that_cannot_be_read_is_refused_without_showing_it(url: str) -> None:
    for name in ("databases", "databases_direct", "redis"):
        with pytest.raises(ValidationError, match=f"(?s){name}.*URL 1 of 1 cannot be read") as it:
            CommonSettings(**{name: url})
        assert CANARY not in str(it.value)


def test_what_is_right_is_not_shown_either() -> None:
    url = f"postgresql://user:{CANARY}@host/database"
    settings = ApiSettings(
        databases=url,
        databases_direct=url,
        redis=f"redis://user:{CANARY}@host",
        secret=CANARY * 3,
        cache_secret=CANARY * 3,
    )
    assert CANARY not in repr(settings) + str(settings)


@pytest.mark.long
@pytest.mark.parametrize("arguments", PROCESSES, ids=lambda it: " ".join(it[1:]))
@pytest.mark.parametrize("name", sorted(SECRETS))
@pytest.mark.parametrize("place", ["variable", "file"])
def test_no_process_says_a_secret(
    arguments: tuple[str, ...], name: str, place: str, tmp_path: Path
) -> None:
    if name == "secret" and arguments[-1] != "microfin_api":
        return  # nobody else reads it
    for value in (CANARY,) if name in ("secret", "cache_secret") else MALFORMED_URLS[3:4]:
        environment = {
            key: text for key, text in os.environ.items() if not key.startswith(PREFIX)
        } | {"MICROFIN_DATABASES": "postgresql://u:x@127.0.0.1:1/d", "MICROFIN_PARTITION": "0"}
        environment["MICROFIN_DATABASES_DIRECT"] = environment["MICROFIN_DATABASES"]
        environment["MICROFIN_KAFKA"] = "127.0.0.1:1"
        variable = f"{PREFIX}{name.upper()}"
        if place == "file":
            path = tmp_path / "secret"
            path.write_text(value)
            environment.pop(variable, None)
            environment[f"{variable}_FILE"] = str(path)
        else:
            environment[variable] = value
        ran = subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert CANARY not in ran.stdout + ran.stderr, (value, ran.stderr)
        assert ran.returncode, (value, ran.stdout)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:p%23ss@host:5432/database?sslmode=verify-full&sslrootcert=/etc/ca.crt",
        "postgres://user:pw@host-1:5432,host-2:5432/database",
        "postgresql://user:pw@[::1]:5432/database",
        "postgresql://user@host/database",
        "postgresql:///database?host=/var/run/postgresql",
        "postgresql://user:pa:ss@host/database",
    ],
)
def test_urls_that_are_right_are_taken(url: str) -> None:
    assert CommonSettings(databases=f"{url} {url}").database_urls == [url, url]
