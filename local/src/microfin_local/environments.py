"""Settings (MICROFIN_…) for each kind of process, made from the platform's addresses."""

from dataclasses import dataclass

from microfin_local.configuration import TOPIC
from microfin_local.credentials import OWNER, Credentials
from microfin_local.kafka import KafkaCluster
from microfin_local.pgbouncer import PgBouncer
from microfin_local.postgres import ARCHIVE, DATABASE, PostgresShard
from microfin_local.redis_cluster import RedisNode


@dataclass(frozen=True)
class DataServices:
    """The components with data; one that is not configured is empty or None."""

    credentials: Credentials
    postgres: list[PostgresShard]
    pgbouncer: PgBouncer | None
    kafka: KafkaCluster | None
    redis: list[RedisNode]
    archives: bool = False

    def environment(
        self, role: str, database: str = DATABASE, topic: str = TOPIC
    ) -> dict[str, str]:
        """Return the settings of a process of this role.

        `role` is `worker`, `api`, `auditor` or `operator`. An operator's shell reads with the
        auditor's role and administers as the owner; no other role has the owner's password.
        """
        login = f"microfin_{'auditor' if role == 'operator' else role}"
        settings = {"MICROFIN_TOPIC": topic}
        if self.pgbouncer is not None:
            # A person's client may run as a user who cannot enter the sockets' folder.
            url = self.pgbouncer.url if login == "microfin_auditor" else self.pgbouncer.local_url
            settings["MICROFIN_DATABASES"] = " ".join(
                url(login, shard.shard, database) for shard in self.postgres
            )
            if self._has_archive(database) and role != "worker":
                settings["MICROFIN_ARCHIVES"] = " ".join(
                    url(login, shard.shard, ARCHIVE) for shard in self.postgres
                )
        if role == "operator":
            settings["MICROFIN_DATABASES_DIRECT"] = " ".join(
                shard.url(OWNER, database) for shard in self.postgres
            )
            if self._has_archive(database):
                settings["MICROFIN_ARCHIVES_DIRECT"] = " ".join(
                    shard.url(OWNER, ARCHIVE) for shard in self.postgres
                )
        if self.kafka is not None:
            settings["MICROFIN_KAFKA"] = self.kafka.bootstrap_of(role)
        if self.redis:
            settings["MICROFIN_REDIS"] = " ".join(node.url for node in self.redis)
        if role in ("api", "worker"):
            settings["MICROFIN_CACHE_SECRET"] = self.credentials.sealing
        if role == "worker":
            settings["MICROFIN_CACHE_ACCOUNTS"] = "never"  # all processes are of one release
        if role == "api":
            settings["MICROFIN_SECRET"] = self.credentials.signing
        return settings

    def _has_archive(self, database: str) -> bool:
        """Return whether a database of the shards has archives: those that tests add have none."""
        return self.archives and database == DATABASE
