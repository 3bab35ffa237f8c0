"""Settings: environment variables `MICROFIN_…`, each documented by its field.

Every setting can also come from a file: `MICROFIN_SECRET_FILE=/run/secrets/secret` reads the value
from there. That is for secrets that must not be in the environment. `make reference` writes
`docs/reference/settings.md` from these classes.

A process reads its settings when it starts. If URLs of databases or of Redis come from a file, it
reads them again for each new connection (`renewed_urls`), because passwords are renewed.
"""

import contextlib
import os
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from microfin.process.database_tls import database_tls
from microfin.process.secret_urls import DATABASE, REDIS, check_urls

PREFIX = "MICROFIN_"


class _FileSource(EnvSettingsSource):
    """Reads `NAME_FILE` where `NAME` itself is not set."""

    def get_field_value(
        self,
        field: FieldInfo,  # noqa: ARG002 - pydantic's signature
        field_name: str,
    ) -> tuple[Any, str, bool]:
        return _from_file(field_name), field_name, False


def _from_file(name: str) -> str | None:
    """Return the content of a setting's file, None where no variable names one."""
    path = os.environ.get(f"{PREFIX}{name.upper()}_FILE")
    return Path(path).read_text(encoding="utf-8").strip() if path else None


class CommonSettings(BaseSettings):
    """The settings of every process of microfin."""

    # An error must not show the value of a setting: several hold passwords.
    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", hide_input_in_errors=True)

    databases: str = Field(
        default="",
        repr=False,
        description="PostgreSQL URLs through the pooler, one for each shard, separated by spaces. "
        "Their order and number never change. `sslmode` in the URL is `verify-full`, `verify-ca`, "
        "`require`, or `disable` for a connection without TLS; a URL without it means "
        "`verify-full`. `sslrootcert` names the file with the CA's certificates, `sslcert` "
        "and `sslkey` a client's certificate.",
    )
    databases_direct: str = Field(
        default="",
        repr=False,
        description="PostgreSQL URLs past the pooler with the owner's role, one for each shard, "
        "separated by spaces: for migrations and administration.",
    )
    archives: str = Field(
        default="",
        repr=False,
        description="PostgreSQL URLs of the shards' archives, one for each shard, in the order of "
        "MICROFIN_DATABASES and spelled alike, separated by spaces: for reading what "
        "`microfin archive` has moved there. Empty where nothing is archived.",
    )
    archives_direct: str = Field(
        default="",
        repr=False,
        description="PostgreSQL URLs of the archives past the pooler with the owner's role, one "
        "for each shard, separated by spaces: for `microfin archive` and "
        "`microfin migrate --archives`.",
    )
    database_statement_cache: int = Field(
        default=0,
        ge=0,
        description="Prepared statements kept per connection. 0 suits every pooler; with PgBouncer "
        "1.21 or later and its max_prepared_statements, 100 saves time.",
    )
    database_connections: int = Field(
        default=4, ge=1, description="The most connections of one process to one shard."
    )
    database_timeout: float = Field(
        default=5.0,
        gt=0,
        description="Seconds until a database call counts as failed.",
    )
    kafka: str = Field(
        default="127.0.0.1:9092",
        description="Kafka's bootstrap servers, host:port, separated by commas.",
    )
    kafka_ca_file: str = Field(
        default="",
        description="A file with CA certificates (PEM), or a folder: then all its files `*.crt` "
        "are trusted, such as an old CA beside its successor. If it is set, Kafka is reached over "
        "TLS.",
    )
    kafka_certificate_file: str = Field(
        default="", description="This client's certificate (PEM) for mutual TLS with Kafka."
    )
    kafka_key_file: str = Field(default="", description="The key of that certificate (PEM).")
    topic: str = Field(default="microfin.commands", description="The commands topic.")
    redis: str = Field(
        default="redis://127.0.0.1:7000",
        repr=False,
        description="URLs of some nodes of the Redis Cluster, separated by spaces; the rest is "
        "discovered. The URL may hold user and password. `rediss://` means TLS.",
    )
    redis_ca_file: str = Field(
        default="",
        description="A file with CA certificates (PEM), or a folder with files `*.crt`, for Redis' "
        "URLs that begin with `rediss://` (TLS). If it is not set, the CAs of the system are "
        "trusted.",
    )
    redis_timeout: float = Field(
        default=0.25,
        gt=0,
        description="Seconds until a Redis call counts as failed; the process then does not call "
        "Redis for a second.",
    )
    cache_secret: str = Field(
        default="",
        repr=False,
        description="At least 32 characters, the same for all workers and API processes, and "
        "different from MICROFIN_SECRET: seals the answers that workers send through Redis. A "
        "process does not believe an answer without this seal: it reads PostgreSQL instead, which "
        "takes longer.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least serious level of log lines to write."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="json for machines, console for people."
    )

    @field_validator("cache_secret")
    @classmethod
    def _long_enough_for_a_seal(cls, value: str) -> str:
        if value and len(value) < 32:
            raise ValueError("MICROFIN_CACHE_SECRET needs at least 32 characters")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Prefer arguments to variables, and variables to files."""
        return init_settings, env_settings, _FileSource(settings_cls, env_prefix=PREFIX)

    @field_validator("databases", "databases_direct", "archives", "archives_direct")
    @classmethod
    def _database_urls_can_be_read(cls, value: str) -> str:
        check_urls(value, DATABASE, "postgresql://user:password@host:port/database")
        for url in value.split():
            database_tls(url)
        return value

    @field_validator("redis")
    @classmethod
    def _redis_urls_can_be_read(cls, value: str) -> str:
        return check_urls(value, REDIS, "redis://user:password@host:port")

    @cached_property
    def database_urls(self) -> list[str]:
        """The pooled URLs, shard 0 first. Raises `ValueError` where there are none."""
        return _urls(self.databases, "MICROFIN_DATABASES")

    @cached_property
    def direct_database_urls(self) -> list[str]:
        """The direct URLs, shard 0 first. Raises `ValueError` where there are none."""
        return _urls(self.databases_direct, "MICROFIN_DATABASES_DIRECT")

    @cached_property
    def archive_urls(self) -> list[str]:
        """The URLs to read the archives, that of shard 0 first; none where nothing is archived."""
        return self.archives.split()

    @cached_property
    def direct_archive_urls(self) -> list[str]:
        """The owner's URLs of the archives, that of shard 0 first. Raises `ValueError` where there
        are none."""
        return _urls(self.archives_direct, "MICROFIN_ARCHIVES_DIRECT")

    @cached_property
    def redis_urls(self) -> list[str]:
        """The URLs of the Redis nodes to start from."""
        return _urls(self.redis, "MICROFIN_REDIS")

    _in_files: dict[str, str] = PrivateAttr(default_factory=dict)
    """The settings that came from files and are read again, with their last values."""

    def model_post_init(self, _: object) -> None:
        """Note which settings came from files, and not from an argument or a variable."""
        for name in ("databases", "archives", "redis"):
            value: str = getattr(self, name)
            if value and value == _from_file(name):
                self._in_files[name] = value

    def renewed_urls(self, name: Literal["databases", "archives", "redis"]) -> list[str]:
        """Return the current URLs in the setting's file, or the first ones where there is no file.

        A file that is empty or missing for a moment counts as unchanged.
        """
        held = self._in_files.get(name)
        if held is None:
            return _urls(getattr(self, name), PREFIX + name.upper())
        with contextlib.suppress(OSError, UnicodeDecodeError):
            self._in_files[name] = _from_file(name) or held
        return self._in_files[name].split()


class WorkerSettings(CommonSettings):
    """The settings of a worker."""

    partition: int | None = Field(
        default=None,
        ge=0,
        description="The partition to work on. If it is not set, it is the number at the end of "
        "the host's name, as a StatefulSet numbers its pods.",
    )
    worker_host: str = Field(
        default="127.0.0.1",
        description="The address of /healthz and the like; empty for all addresses, IPv4 and IPv6.",
    )
    worker_port: int = Field(default=8081, description="The port of /healthz and the like.")
    batch_limit: int = Field(
        default=500, ge=1, description="The most commands in one transaction; 1 is the naive mode."
    )
    batch_interval: float = Field(
        default=0.012,
        ge=0,
        lt=1,
        description="Seconds from the beginning of a batch of several commands to the beginning of "
        "the next, so that under load a batch holds many; up to 0.05 where commits are slow. After "
        "a command that came alone there is no pause. 0 means no pause at all.",
    )
    account_memory: int = Field(
        default=100_000,
        ge=0,
        description="The number of accounts that a worker keeps in memory between batches.",
    )
    cache_accounts: Literal["always", "never"] = Field(
        default="always",
        description="Whether the worker writes each changed account to Redis before it answers. "
        "Only API processes of the release before read balances there. Set it to `never` when none "
        "of them runs any more: then a worker needs less CPU, and answers sooner.",
    )
    outbox_limit: int = Field(
        default=10_000,
        ge=1,
        description="Unacknowledged outbox rows above which a worker reads no new batch.",
    )


class ApiSettings(CommonSettings):
    """The settings of an API process."""

    database_connections: int = Field(
        default=64,
        ge=1,
        description="The most connections of one API process to one shard, through the pooler.",
    )
    api_host: str = Field(
        default="127.0.0.1",
        description="The address to listen on; empty for all addresses, IPv4 and IPv6.",
    )
    api_port: int = Field(default=8080, description="The port to listen on.")
    secret: str = Field(
        default="",
        repr=False,
        description="At least 32 characters, the same for all API processes: signs session ids and "
        "the `at` of 202 answers.",
    )
    answer: Literal["settled", "accepted"] = Field(
        default="settled",
        description="What the answer to a deposit, a withdrawal or a transfer waits for: `settled` "
        "waits for the outcome, `accepted` answers 202 once the command is durable.",
    )
    default_currency: str = Field(
        default="EUR", description="The currency of an account opened without one (ISO 4217)."
    )
    answer_within: float = Field(
        default=5.0, gt=0, description="Seconds to wait for a final outcome before answering 202."
    )
    unknown_after: float = Field(
        default=10.0,
        gt=0,
        description="Seconds after which the answer is 503 unknown at the latest.",
    )
    look_up_after: float = Field(
        default=0.5,
        gt=0,
        description="Seconds without an answer until the process asks PostgreSQL.",
    )
    command_deadline: float = Field(
        default=60.0, gt=0, description="Seconds after which a late command is rejected as expired."
    )
    partition_limit: int = Field(
        default=1_000,
        ge=1,
        description="Unanswered commands per partition above which a process answers 503.",
    )
    request_limit: int = Field(
        default=1_000,
        ge=1,
        description="Requests under way above which a process answers 503 at once, before memory "
        "or latency grow without limit. Requests for health and metrics are always answered.",
    )
    body_limit: int = Field(default=16_384, ge=256, description="The largest request body, bytes.")
    accounts_per_user: int = Field(
        default=10_000,
        ge=1,
        description="Accounts of one user above which no more are opened. Requests of one user at "
        "the same time may exceed it by the number of those requests.",
    )
    session_days: int = Field(
        default=30,
        ge=1,
        description="Days from signing in until a session ends; used if MICROFIN_SESSION_MINUTES "
        "is not set.",
    )
    session_minutes: int = Field(
        default=0,
        ge=0,
        description="Minutes from signing in until a session ends; 0 means that "
        "MICROFIN_SESSION_DAYS counts.",
    )
    session_idle_minutes: int = Field(
        default=0,
        ge=0,
        description="Minutes without a request after which a session ends, up to 16 minutes later "
        "(2 for a limit of an hour or less); 0 means no limit.",
    )
    sessions_per_user: int = Field(
        default=100,
        ge=1,
        le=1000,
        description="The most sessions of one user; one more ends the oldest.",
    )
    cookie_secure: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Whether the session cookie is Secure; auto: if the request came over TLS.",
    )
    trusted_proxies: str = Field(
        default="127.0.0.1/32 ::1/128",
        description="Networks whose X-Forwarded-* headers are believed, separated by spaces.",
    )
    allowed_origins: str = Field(
        default="",
        description="Origins other than our own that may send state-changing requests with the "
        "session cookie, separated by spaces.",
    )
    argon2_memory: int = Field(
        default=19_456, ge=8, description="argon2id memory in KiB (OWASP: 19456 with time cost 2)."
    )
    argon2_time: int = Field(default=2, ge=1, description="argon2id time cost (iterations).")
    argon2_parallelism: int = Field(default=1, ge=1, description="argon2id lanes.")
    argon2_concurrency: int = Field(
        default=0,
        ge=0,
        description="Processes at lower priority that compute password hashes for one API "
        "process, one hash after another. 0 means one less than the cores that it may use, "
        "but at least one, and no more than fit into a quarter of the limit on its memory (limits "
        "of cgroups, version 2).",
    )
    sign_in_rate: int = Field(
        default=10,
        ge=0,
        description="Failed sign-ins a minute to one e-mail address from one client address, and "
        "from each device that has signed in to that address before; 0 means no limit.",
    )
    sign_in_email_rate: int = Field(
        default=30,
        ge=0,
        description="Failed sign-ins a minute to one e-mail address from all devices that have not "
        "signed in to it before; 0 means no limit.",
    )
    sign_in_address_rate: int = Field(
        default=100,
        ge=0,
        description="Failed sign-ins a minute per client address; 0 means no limit.",
    )
    sign_up_address_rate: int = Field(
        default=30, ge=0, description="Sign-ups a minute per client address; 0 means no limit."
    )

    drain_seconds: float = Field(
        default=0.0,
        ge=0,
        description="Seconds after SIGTERM in which the process still serves every request, while "
        "/readyz says no and every answer closes its connection, so that clients first move to "
        "another process.",
    )

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, value: str) -> str:
        if value and len(value) < 32:
            raise ValueError("MICROFIN_SECRET needs at least 32 characters")
        return value


def _urls(text: str, name: str) -> list[str]:
    urls = text.split()
    if not urls:
        raise ValueError(f"{name} is not set: give the URLs, separated by spaces.")
    return urls
