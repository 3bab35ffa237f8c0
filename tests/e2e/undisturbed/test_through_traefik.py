"""The chart's Ingress and HTTPRoute served by Traefik, over TLS, to clients outside of the bank.

It is the last of these files, because it rolls the API.
"""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio

from e2e.client_pod import Client
from e2e.figures import figure
from e2e.kubernetes_bank import API_IMAGE, Bank, moving_money
from e2e.kubernetes_cluster import ROOT, apply, kubectl, own_namespace, until
from e2e.traefik_pod import INGRESS_CLASS, Traefik, gateway, traefik
from e2e.way_in import way_in
from support.certificates import Authority

pytestmark = pytest.mark.timeout(600)

API: Final = "app.kubernetes.io/component=api"
HSTS: Final = "max-age=31536000"
SIGN_UPS: Final = 8  # a minute
_CERTIFICATE: Final = "microfin-tls"
_ANNOTATION: Final = "nginx.ingress.kubernetes.io"
_PARTITIONS: Final = 3
_MOVE_MONEY: Final = ROOT / "charts/microfin/files/move_money.py"
# Sends requests, twenty at a time; the certificate is verified.
_ASK: Final = """
import http.client, json, sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

def ask(method, url, headers, body):
    place = urlsplit(url)
    https = place.scheme == "https"
    connection = (http.client.HTTPSConnection if https else http.client.HTTPConnection)(
        place.netloc, timeout=40
    )
    connection.request(method, place.path, body, headers)
    answer = connection.getresponse()
    return answer.status, {name.lower(): it for name, it in answer.headers.items()}, (
        answer.read().decode()
    )

with ThreadPoolExecutor(20) as pool:
    print(json.dumps(list(pool.map(lambda it: ask(*it), json.load(sys.stdin)))))
"""
# Prints the serial number of the certificate that a new connection gets.
_SERIAL: Final = """
import socket, ssl, sys
with socket.create_connection((sys.argv[1], 443), timeout=10) as plain:
    with ssl.create_default_context().wrap_socket(plain, server_hostname=sys.argv[1]) as secure:
        print(secure.getpeercert()["serialNumber"])
"""

Request = tuple[str, str, dict[str, str], str | None]
Answer = tuple[int, dict[str, str], str]


@dataclass(frozen=True)
class Door:
    """A way into the bank: its host's clients, and where its certificate is."""

    host: str
    client: Client
    secret_namespace: str


@dataclass(frozen=True)
class Served:
    """A bank with two doors, which one Traefik serves."""

    bank: Bank
    authority: Authority
    ingress: Door
    gateway: Door

    def door(self, name: str) -> Door:
        """Return the Ingress or the Gateway."""
        return {"Ingress": self.ingress, "Gateway": self.gateway}[name]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(bank: Bank) -> AsyncIterator[Served]:
    """As k8s/ingress-nginx/README.md and k8s/traefik/README.md say it, with an own CA."""
    async with traefik() as controller, own_namespace() as elsewhere:
        host = bank.wanted.host
        hosts = (host, f"gateway.{host}")
        client = Client(
            elsewhere, "", API_IMAGE, {}, hosts, controller.address, authority="authority"
        )
        ingress, route = (
            Door(it, replace(client, url=f"https://{it}"), place)
            for it, place in zip(hosts, (bank.namespace, controller.namespace), strict=True)
        )
        authority = Authority("an authority of the tests")
        apply(
            *(_certificate(door, authority) for door in (ingress, route)),
            _config_map(elsewhere, "authority", {"ca.crt": authority.certificate.decode()}),
            _config_map(bank.namespace, "headers", {"Strict-Transport-Security": HSTS}),
            gateway(controller.namespace, _CERTIFICATE),
            *(client.pod(it, "sleep", "3600") for it in ("client", "neighbour")),
        )
        through = Bank(
            replace(bank.wanted, application=_values(bank, controller, route.host)),
            replace(bank.platform, ingress_class=INGRESS_CLASS),
        )
        await asyncio.to_thread(through.upgrade)
        client.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        made = Served(through, authority, ingress, route)
        await until("both are served", lambda: all(_is_served(it) for it in (ingress, route)))
        yield made


def _values(bank: Bank, controller: Traefik, gateway_host: str) -> dict[str, Any]:
    peer = {"kubernetes.io/metadata.name": controller.namespace}
    public = {"name": "public", "namespace": controller.namespace, "sectionName": "https"}
    return {
        **bank.wanted.application,
        "ingress": {
            "tlsSecret": _CERTIFICATE,
            "annotations": {f"{_ANNOTATION}/custom-headers": f"{bank.namespace}/headers"},
        },
        "gateway": {"enabled": True, "hostnames": [gateway_host], "parentRefs": [public]},
        "networkPolicy": {
            "ingressController": [{"namespaceSelector": {"matchLabels": peer}}],
        },
        "api": {
            "trustedProxies": f"{controller.pod_address}/32",
            "cookieSecure": "always",
            "settings": {"MICROFIN_SIGN_UP_ADDRESS_RATE": str(SIGN_UPS)},
        },
    }


def _certificate(door: Door, authority: Authority) -> dict[str, Any]:
    issued = authority.issue(door.host, door.host)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": _CERTIFICATE, "namespace": door.secret_namespace},
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": b64encode(issued.certificate).decode(),
            "tls.key": b64encode(issued.key).decode(),
        },
    }


def _config_map(namespace: str, name: str, data: dict[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _ask(door: Door, *requests: Request, pod: str = "client") -> list[Answer]:
    """Send requests from a pod outside of the bank, and return their answers."""
    inside = ("-n", door.client.namespace, "exec", "-i", pod, "--", "python", "-c", _ASK)
    answers: list[Answer] = json.loads(kubectl(*inside, stdin=json.dumps(requests)))
    return answers


def _get(door: Door, *paths: str) -> list[Answer]:
    return _ask(door, *(("GET", f"{door.client.url}{path}", {}, None) for path in paths))


def _is_served(door: Door) -> bool:
    try:
        return _get(door, "/openapi.json")[0][0] == 200
    except AssertionError:  # no certificate of its own yet
        return False


def _serial(door: Door) -> str:
    return door.client.kubectl("exec", "client", "--", "python", "-c", _SERIAL, door.host)


@pytest.mark.parametrize("way", ["Ingress", "Gateway"])
def test_from_sign_up_to_transfer(served: Served, way: str) -> None:
    door = served.door(way)
    script = _MOVE_MONEY.read_text(encoding="utf-8")
    printed = door.client.kubectl("exec", "client", "--", "python", "-c", script, door.client.url)
    assert "all balances are right" in printed


@pytest.mark.parametrize("way", ["Ingress", "Gateway"])
async def test_the_api_is_rolled_and_the_certificate_renewed(served: Served, way: str) -> None:
    door, bank = served.door(way), served.bank
    former = _serial(door)
    async with moving_money(bank, _PARTITIONS, client=door.client) as mover:
        apply(_certificate(door, served.authority))
        renewed = await until("the new certificate", lambda: _serial(door) != former)
        bank.kubectl("rollout", "restart", "deployment/microfin-api")
        bank.kubectl("rollout", "status", "deployment/microfin-api", "--timeout=240s")
        await until("the old pods are gone", lambda: len(bank.pods(API)) == 2)
    mover.report.assert_nobody_noticed()
    figure(f"the {way}'s renewed certificate was served after {renewed:.1f} s")


@pytest.mark.parametrize("way", ["Ingress", "Gateway"])
def test_the_world_sees_the_api_and_its_pages_only(served: Served, way: str) -> None:
    door = served.door(way)
    own = ("/healthz", "/livez", "/readyz", "/metrics", "/status", "/", "/apis", "/openapi.jsonx")
    winding = ("/api/../metrics", "/api/%2e%2e/metrics", "/api//../metrics", "//metrics")
    answers = zip((*own, *winding), _get(door, *own, *winding), strict=True)
    seen = {path: status for path, (status, _, _) in answers if status not in (308, 404)}
    assert seen == {}
    for status, headers, _ in _get(door, "/openapi.json", "/docs", "/api/me"):
        assert status in (200, 401)
        assert headers["strict-transport-security"] == HSTS


async def test_http_is_sent_to_https(served: Served) -> None:
    """From outside of the cluster."""
    path = "/openapi.json"
    async with way_in(served.bank) as (url, host), httpx.AsyncClient() as client:
        answer = await client.get(f"{url}{path}", headers={"Host": host})
    assert answer.status_code == 308
    assert answer.headers["location"] == f"https://{host}{path}"
    # A Gateway without a listener for HTTP has nothing there.
    ((status, _, _),) = _ask(
        served.gateway, ("GET", f"http://{served.gateway.host}{path}", {}, None)
    )
    assert status == 404


@pytest.mark.parametrize("way", ["Ingress", "Gateway"])
def test_a_clients_address_reaches_the_api_and_cannot_be_forged(served: Served, way: str) -> None:
    door = served.door(way)
    forged = [_sign_up(door, f"{way}{it}", f"192.0.2.{it}") for it in range(3 * SIGN_UPS)]
    answers = _ask(door, *forged)
    assert {status for status, _, _ in answers} <= {200, 429}
    refused = [json.loads(body)["code"] for status, _, body in answers if status == 429]
    assert refused == ["too_many_sign_ups"] * len(refused)
    assert len(refused) >= 2 * SIGN_UPS
    ((status, _, body),) = _ask(door, _sign_up(door, f"{way}-next", "192.0.2.1"), pod="neighbour")
    assert status == 200, body


def _sign_up(door: Door, name: str, address: str) -> Request:
    """Return a sign-up that claims an address by every header, and that offers an upgrade."""
    person = {"name": name, "email": f"{name}@example.com", "password": "correct horse staple"}
    headers = {
        "Content-Type": "application/json",
        "Forwarded": f"for={address};proto=http",
        "X-Forwarded-For": address,
        "X-Real-IP": address,
        "Connection": "Upgrade, X-Forwarded-For",
        "Upgrade": "h2c",
    }
    return "POST", f"{door.client.url}/api/signup", headers, json.dumps(person)


def test_a_large_body_is_refused_before_the_api_reads_it(served: Served) -> None:
    def post(length: int) -> Request:
        headers = {"Content-Type": "application/json"}
        return "POST", f"{served.ingress.client.url}/api/signup", headers, "x" * length

    by_the_api, by_traefik = _ask(served.ingress, post(20_000), post(100_000))
    assert (by_the_api[0], by_traefik[0]) == (413, 413)
    assert by_the_api[1]["content-type"] == "application/problem+json"
    assert "json" not in by_traefik[1].get("content-type", "")


@pytest.mark.parametrize(("limit", "value"), [("limit-rps", "1"), ("limit-connections", "2")])
async def test_more_requests_than_allowed_get_429(served: Served, limit: str, value: str) -> None:
    """The API itself limits no reads, so every 429 is Traefik's."""
    ingress = ("annotate", "ingress/microfin-api", f"{_ANNOTATION}/{limit}={value}")
    served.bank.kubectl(*ingress)
    seen: set[int] = set()

    def refused() -> bool:
        answers = _get(served.ingress, *(["/api/me"] * 40))
        seen.update(status for status, _, _ in answers)
        return 429 in seen

    try:
        await until("the limit", refused, 60)
    finally:
        served.bank.kubectl(*ingress[:2], f"{_ANNOTATION}/{limit}-")
    assert seen == {401, 429}
