"""Pages of other origins that the settings allow."""

from support.api_under_test import Ledger, running

APP = "https://app.example"


async def test_an_allowed_origin_may_ask_and_send(ledger: Ledger) -> None:
    async with running(ledger.settings(allowed_origins=APP)) as api:
        user = await api.user()
        asked = {"Origin": APP, "Access-Control-Request-Method": "POST"}
        preflight = await user.client.options("/api/accounts", headers=asked)
        assert preflight.status_code == 204
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert preflight.headers["access-control-allow-origin"] == APP
        answer = await user.client.post("/api/accounts", json={}, headers={"Origin": APP})
        assert answer.status_code == 201
        assert answer.headers["access-control-allow-origin"] == APP
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["vary"] == "Origin"


async def test_other_origins_are_answered_nothing(ledger: Ledger) -> None:
    async with running(ledger.settings(allowed_origins=APP)) as api, api.client() as client:
        asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        preflight = await client.options("/api/accounts", headers=asked)
        assert preflight.status_code == 405
        assert "access-control-allow-origin" not in preflight.headers


async def test_an_allowed_page_may_read_and_send_what_a_client_needs(ledger: Ledger) -> None:
    async with running(ledger.settings(allowed_origins=f"{APP}:443/")) as api:
        user = await api.user()
        asked = {"Origin": APP, "Access-Control-Request-Method": "POST"}
        preflight = await user.client.options("/api/accounts", headers=asked)
        assert preflight.status_code == 204
        assert preflight.headers["vary"] == "Origin"
        may_send = set(preflight.headers["access-control-allow-headers"].lower().split(", "))
        assert may_send == {
            "authorization",
            "cache-control",
            "content-type",
            "idempotency-key",
            "prefer",
            "x-request-id",
        }
        answer = await user.client.get("/api/nothing", headers={"Origin": APP})
        may_read = set(answer.headers["access-control-expose-headers"].lower().split(", "))
        assert may_read == {
            "idempotency-key",
            "idempotency-replayed",
            "location",
            "preference-applied",
            "retry-after",
            "x-request-id",
        }
