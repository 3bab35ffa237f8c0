"""The platform: starts the components in order, says where they listen, and stops them all.

configuration = Configuration(state=folder, random_ports=True, components=DATA_COMPONENTS)
async with Platform(configuration) as platform:
    print(platform.endpoints.kafka)
"""

import asyncio
import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

from microfin_local import applications, kafka, nginx, postgres
from microfin_local.configuration import (
    TOPIC,
    Configuration,
    recall,
    refuse_changed_form,
    remember,
)
from microfin_local.credentials import OWNER, load_or_make
from microfin_local.data_services import DataStarter, lay_out
from microfin_local.database_home import choose_home
from microfin_local.detours import Detours
from microfin_local.endpoints import Endpoints, remove_endpoints, write_endpoints
from microfin_local.environments import DataServices
from microfin_local.errors import PlatformError
from microfin_local.ports import Ports
from microfin_local.postgres import DATABASE
from microfin_local.supervised import SupervisedProcess
from microfin_local.supervisor import Supervisor, end_leftovers
from microfin_local.wait import accepts_connections, wait_until

REPOSITORY = Path(__file__).resolve().parents[3]
JARS = REPOSITORY / ".local" / "cache" / f"kafka-{kafka.KAFKA_VERSION}"
PROCESSES_FILE = "processes.json"


def _be_silent(_message: str) -> None:
    """Print nothing: a test reads the logs if it needs them."""


class Platform:
    """One platform. Its processes end with it, and with the process that made it."""

    def __init__(
        self, configuration: Configuration, say: Callable[[str], None] = _be_silent
    ) -> None:
        state = configuration.state.resolve()
        self.configuration = dataclasses.replace(configuration, state=state)
        self.endpoints = Endpoints()
        self._say = say
        self._home = choose_home(state, configuration.database_folder)
        if self._home.folder not in (state, configuration.database_folder):
            say(
                f"{state} cannot be entered by the user {self._home.user}, who runs PostgreSQL; "
                f"its data and PgBouncer's are in {self._home.folder}"
            )
        self._ports = Ports(state / "ports.json", random_ports=configuration.random_ports)
        self.detours = Detours(self._ports, wanted=bool(configuration.proxy))
        self._supervisor = Supervisor(
            self.configuration.logs, state / PROCESSES_FILE, say, configuration.own
        )
        self._services: DataServices | None = None

    async def __aenter__(self) -> Self:
        """Start; if that fails, no process is left running."""
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Stop everything."""
        await self.stop()

    async def start(self) -> None:
        """Start all components and return when all are ready. Raises PlatformError if one fails."""
        memory = recall(self.configuration.state)
        refuse_changed_form(self.configuration, memory)
        self._clean_up_after_last_time()
        services = lay_out(
            self.configuration,
            self._ports,
            self.detours,
            load_or_make(self.configuration.state / "secrets.json"),
            self._home,
            JARS,
        )
        self._services = services
        remember(self.configuration)
        await self._start_proxy()
        starter = DataStarter(services, self._supervisor, self.configuration, self._home, self._say)
        try:
            await starter.start(self._ports.changed, self._migrate)
        except* Exception as failures:  # noqa: BLE001 - reported with the logs
            raise PlatformError(self._explanation(failures)) from None
        self.endpoints = self._data_endpoints(services)
        await self._start_applications()
        write_endpoints(self.configuration.state, self.endpoints)

    def _explanation(self, failures: ExceptionGroup[Exception]) -> str:
        """Return what went wrong, with the logs' folder if a message does not name a log."""
        lines = [
            str(it)
            if isinstance(it, PlatformError)
            else f"{it!r} (logs: {self.configuration.logs})"
            for it in failures.exceptions
        ]
        return "\n".join(lines)

    async def stop(self) -> None:
        """Stop every process and wait until all are gone."""
        remove_endpoints(self.configuration.state)
        await self._supervisor.stop_all()
        self._ports.release()

    async def grow(self, workers: int) -> str:
        """Grow to `workers` partitions, each with its worker, while money moves; return the result.

        Raises PlatformError if that is impossible. A failed growth can be repeated.
        """
        before = self.configuration.workers
        if workers < before:
            raise PlatformError(
                f"There are {before} partitions, and partitions never shrink: WORKERS={workers} "
                "is fewer."
            )
        configuration = dataclasses.replace(self.configuration, workers=workers)
        cluster = self._started_services().kafka
        if cluster is None:
            raise PlatformError("This platform was started without Kafka.")
        self._say(f"growing from {before} to {workers} partitions")
        await kafka.widen_topic(cluster, TOPIC, workers)
        # Written before accounts move: from then on every start runs the new partitions' workers.
        remember(configuration)
        self.configuration = configuration
        urls = self.endpoints.workers + await self._start_workers(before)
        self.endpoints = dataclasses.replace(self.endpoints, workers=urls)
        await self._wait_until_ready()
        await applications.grow_routing(
            self._started_services().environment("operator"),
            workers,
            self.configuration.state,
            self.configuration.logs / "grow.log",
        )
        write_endpoints(self.configuration.state, self.endpoints)
        said = f"{workers} partitions, {workers} workers"
        self._say(said)
        return said

    def process(self, name: str) -> SupervisedProcess:
        """Return a process by name, such as `worker-0`, `kafka-1` or `redis-2`."""
        return self._supervisor[name]

    def port_of(self, name: str) -> int:
        """Return the port that a process itself listens on, also if a proxy is in front of it."""
        return self._ports[name]

    @property
    def process_names(self) -> list[str]:
        """The names of all processes."""
        return self._supervisor.names

    async def kill(self, name: str) -> None:
        """Kill a process and its children with SIGKILL; the supervisor starts it again."""
        self.process(name).kill()

    async def terminate(self, name: str) -> None:
        """Ask a process to end; the supervisor starts it again."""
        process = self.process(name)
        process.signal(process.program.stop_signal)

    async def pause(self, name: str) -> None:
        """Freeze a process and its children with SIGSTOP."""
        self.process(name).pause()

    async def resume(self, name: str) -> None:
        """Continue a frozen process."""
        self.process(name).resume()

    async def stop_process(self, name: str) -> None:
        """Stop a process and keep it stopped."""
        await self.process(name).stop()

    async def start_process(self, name: str) -> None:
        """Start a process that was stopped. Returns when it runs, not when it is ready."""
        await self.process(name).start()

    def environment(
        self, role: str, database: str = DATABASE, topic: str = TOPIC
    ) -> dict[str, str]:
        """Return the settings of a process that is started by hand.

        `role` is `worker`, `api`, `auditor` or `operator` (which has the owner's direct URLs).
        """
        return self._started_services().environment(role, database, topic)

    def postgres_direct(self, shard: int = 0, role: str = OWNER, database: str = DATABASE) -> str:
        """Return the URL of a shard's PostgreSQL without the pooler."""
        return self._started_services().postgres[shard].url(role, database)

    def postgres_pooled(self, shard: int, role: str, database: str = DATABASE) -> str:
        """Return the URL of a shard's PostgreSQL through PgBouncer."""
        pooler = self._started_services().pgbouncer
        if pooler is None:
            raise PlatformError("This platform was started without PgBouncer.")
        return pooler.url(role, shard, database)

    async def create_database(self, database: str) -> None:
        """Make an empty database of this name on every shard, known to PgBouncer too."""
        services = self._started_services()
        await asyncio.gather(
            *(postgres.make_database(shard, database) for shard in services.postgres)
        )
        if services.pgbouncer is not None:
            services.pgbouncer.add(database)
            services.pgbouncer.write_settings()
            await services.pgbouncer.read_again()

    async def create_topic(self, topic: str, partitions: int) -> None:
        """Make a commands topic of this name."""
        cluster = self._started_services().kafka
        if cluster is None:
            raise PlatformError("This platform was started without Kafka.")
        processes = [self.process(broker.name) for broker in cluster.brokers]
        await wait_until(
            lambda: kafka.make_topic(cluster, topic, partitions), processes, f"Topic {topic}"
        )

    def _started_services(self) -> DataServices:
        if self._services is None:
            raise PlatformError("The platform was not started.")
        return self._services

    def _clean_up_after_last_time(self) -> None:
        remove_endpoints(self.configuration.state)
        left = end_leftovers(self.configuration.state / PROCESSES_FILE)
        if left:
            self._say(f"killed processes that the last run left behind: {', '.join(left)}")

    def _data_endpoints(self, services: DataServices) -> Endpoints:
        pooler = services.pgbouncer
        urls = [shard.url() for shard in services.postgres]
        return Endpoints(
            postgres=urls[0] if urls else "",
            postgres_shards=urls,
            pgbouncer=[
                pooler.url("microfin_auditor", shard.shard)
                for shard in services.postgres
                if pooler is not None
            ],
            kafka=services.kafka.bootstrap if services.kafka is not None else "",
            redis=[node.url for node in services.redis],
            environment=services.environment("operator"),
        )

    async def _start_proxy(self) -> None:
        """Start the configured proxy, before the components that it forwards to."""
        if not self.configuration.proxy:
            return
        for number in range(self.configuration.api_processes):
            self.detours.around(f"nginx-api-{number}", self._api_port(number))
        self.detours.around("client-nginx", self._nginx_port())
        program = self.detours.program(self.configuration.proxy, self.configuration.state)
        process = await self._supervisor.start(program)
        await wait_until(lambda: accepts_connections(self.detours.control), [process], "The proxy")

    def _api_port(self, number: int) -> int:
        return self._ports.choose(f"api-{number}", 8080 + number)

    def _nginx_port(self) -> int:
        return self._ports.choose("nginx", 8000)

    async def _migrate(self) -> None:
        """Create or update the schema if workers or the API are configured."""
        if not self.configuration.components & {"workers", "api"}:
            return
        await applications.migrate(
            self.environment("operator"),
            self.configuration.workers,
            self.configuration.state,
            self.configuration.logs / "migrate.log",
            archives=bool(self.configuration.archives),
        )
        self._say("the schema is as it should be (microfin migrate)")

    async def _start_applications(self) -> None:
        components = self.configuration.components
        workers = await self._start_workers(0) if "workers" in components else []
        apis = await self._start_apis() if "api" in components else []
        self.endpoints = dataclasses.replace(self.endpoints, workers=workers, apis=apis)
        if "nginx" in components:
            await self._start_nginx()
        await self._wait_until_ready()

    async def _start_workers(self, first: int) -> list[str]:
        """Start the workers of partition `first` and later ones; return their URLs."""
        urls = []
        settings = self._started_services().environment("worker")
        for partition in range(first, self.configuration.workers):
            port = self._ports.choose(f"worker-{partition}", 8100 + partition)
            await self._supervisor.start(
                applications.worker(
                    partition, port, self.configuration.state, settings, self.configuration.extra
                )
            )
            urls.append(f"http://127.0.0.1:{port}")
        return urls

    async def _start_apis(self) -> list[str]:
        urls = []
        settings = self._started_services().environment("api")
        for number in range(self.configuration.api_processes):
            port = self._api_port(number)
            await self._supervisor.start(
                applications.api(
                    number, port, self.configuration.state, settings, self.configuration.extra
                )
            )
            urls.append(f"http://127.0.0.1:{port}")
        return urls

    async def _start_nginx(self) -> None:
        port = self._nginx_port()
        program = nginx.prepare(
            self.configuration.state / "nginx",
            port,
            [
                self.detours.around(f"nginx-api-{number}", self._api_port(number))
                for number in range(len(self.endpoints.apis))
            ],
            as_root=os.geteuid() == 0,
        )
        await self._supervisor.start(program)
        self.endpoints = dataclasses.replace(self.endpoints, api=f"http://127.0.0.1:{port}")

    async def _wait_until_ready(self) -> None:
        """Wait for every worker, every API process, and one through nginx."""
        waits = [(f"worker-{number}", url) for number, url in enumerate(self.endpoints.workers)] + [
            (f"api-{number}", url) for number, url in enumerate(self.endpoints.apis)
        ]
        if self.endpoints.api:
            waits.append(("nginx", self.endpoints.api))
        for name, url in waits:
            process = self.process(name)
            await wait_until(partial(applications.is_ready, url), [process], name)
            self._say(f"{name} is ready on {url}")
