"""One platform whose servers all speak TLS."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from microfin_local import database_home
from microfin_local.configuration import DATA_COMPONENTS, Configuration
from microfin_local.platform import Platform
from tls.servers import Servers


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def servers(
    real_components: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Servers]:
    """Kafka, PostgreSQL, PgBouncer and a Redis Cluster, with certificates that can be changed."""
    state = tmp_path_factory.mktemp("tls")
    servers = Servers(state / "tls")
    configuration = Configuration(
        state=state / "platform",
        components=DATA_COMPONENTS,
        random_ports=True,
        tls=servers.folder,
    )
    try:
        async with Platform(configuration) as platform:
            servers.platform = platform
            yield servers
    finally:
        database_home.forget(configuration.state)
