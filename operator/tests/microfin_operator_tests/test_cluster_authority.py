"""The operator asks for a restart when the API server's authority was replaced in its pod."""

from pathlib import Path

import httpx
import pytest

from microfin_operator.api_silence import ApiSilence
from microfin_operator.cluster_authority import ClusterAuthority
from microfin_operator.cluster_loop import ClusterLoops, Pace
from microfin_operator.kubernetes_api import connect
from microfin_operator.web import WebServer
from microfin_operator.worker_reports import WorkerReader
from support.certificates import Authority, Secret


async def test_a_replaced_authority_asks_for_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Authority("kubernetes").certificate, Authority("kubernetes").certificate
    account = Secret(tmp_path / "account", {"ca.crt": first, "token": b"first"})
    (tmp_path / "config").write_text(
        "{apiVersion: v1, kind: Config, current-context: a, users: [],"
        " contexts: [{name: a, context: {cluster: a}}],"
        " clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]}"
    )
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    api, workers = await connect(1), WorkerReader(8081)
    loops = ClusterLoops(api, workers, Pace(1, 1, 1))
    authority = ClusterAuthority(Path(account.path("ca.crt")))
    web = WebServer(loops, ApiSilence(api, loops.wake_all), authority, "127.0.0.1", 0)
    await web.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{web.port}") as client:
            account.put({"ca.crt": first, "token": b"second"})
            assert (await client.get("/healthz")).status_code == 200
            account.put({"token": b"third"})  # while somebody repairs it, a restart does not help
            assert (await client.get("/healthz")).status_code == 200
            account.put({"ca.crt": second, "token": b"third"})
            answer = await client.get("/healthz")
            assert answer.status_code == 503
            assert "authority was replaced" in answer.text
    finally:
        await web.stop()
        await workers.close()
        await api.close()
