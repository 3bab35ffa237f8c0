"""A cluster in memory, and the operator on it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from kmock._internal.apps import Server

from support.operator.emulated_api import EmulatedApi
from support.operator.line import Line
from support.operator.world import World


@pytest_asyncio.fixture
async def api() -> AsyncIterator[EmulatedApi]:
    """An API server in memory; its address is `served(api)`'s business."""
    async with EmulatedApi() as emulated:
        yield emulated


@pytest_asyncio.fixture
async def server(api: EmulatedApi) -> AsyncIterator[Server]:
    """The API server, listening."""
    async with Server(api) as listening:
        yield listening


@pytest_asyncio.fixture
async def world(api: EmulatedApi) -> AsyncIterator[World]:
    """The other controllers and the workers."""
    running = World(api)
    async with running.running():
        yield running


@pytest_asyncio.fixture
async def line(server: Server) -> AsyncIterator[Line]:
    """The operator's line to the API server."""
    laid = Line(server.host, server.port)
    await laid.connect()
    yield laid
    await laid.cut()


@pytest.fixture
def kubeconfig(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """KUBECONFIG for the API server."""
    path = tmp_path / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "test", "cluster": {"server": line.url}}],
                "users": [{"name": "test", "user": {}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            }
        )
    )
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path
