"""A client of the platform that microfin replaces: paths with slashes, GET to open, cookies."""

import pytest

from support.api_under_test import ORIGIN, Api

PATHS = ["/api/signup", "/api/signin", "/api/signout", "/api/me", "/api/accounts", "/api/deposit"]


@pytest.mark.parametrize("slash", ["", "/"])
async def test_its_session(api: Api, slash: str) -> None:
    async with api.client() as client:
        email = f"original{len(slash)}@example.com"
        body = {"name": "Ori Ginal", "email": email, "password": "secret-password"}
        assert (await client.post(f"/api/signup{slash}", json=body)).status_code == 200
        client.cookies.clear()
        credentials = {"email": email, "password": "secret-password"}
        signed_in = await client.post(f"/api/signin{slash}", json=credentials)
        assert signed_in.status_code == 200
        assert client.cookies["sessionId"]
        first = await client.get(f"/api/accountGeneration{slash}")
        second = await client.post(f"/api/accountGeneration{slash}", json={})
        third = await client.post(f"/api/accountGeneration{slash}", headers={"Content-Type": ""})
        assert first.status_code == second.status_code == 200
        assert third.status_code == 415  # an empty type is none of JSON's
        assert first.headers["deprecation"].startswith("@")
        sender, receiver = (answer.json()["accountNumber"] for answer in (first, second))
        deposit = {"accountNumber": sender, "amount": 100}
        answer = await client.post(f"/api/deposit{slash}", json=deposit)
        assert (answer.status_code, answer.json()["balance"]) == (200, "100.00")
        withdrawal = {"accountNumber": sender, "amount": 30.5}
        answer = await client.post(f"/api/withdraw{slash}", json=withdrawal)
        assert (answer.status_code, answer.json()["balance"]) == (200, "69.50")
        transfer = {
            "senderAccountNumber": sender,
            "receiverAccountNumber": receiver,
            "amount": 19.5,
        }
        answer = await client.post(f"/api/transfer{slash}", json=transfer)
        assert (answer.status_code, answer.json()["balance"]) == (200, "50.00")
        shown = await client.get(f"/api/accounts/{receiver}{slash}")
        assert shown.json()["balance"] == "19.50"
        assert (await client.post(f"/api/signout{slash}")).status_code == 200


async def test_a_post_needs_no_body_to_open_an_account(api: Api) -> None:
    user = await api.user()
    request = user.client.build_request("POST", "/api/accountGeneration")
    del request.headers["content-type"]
    answer = await user.client.send(request)
    assert answer.status_code == 200
    assert answer.json()["accountNumber"]


async def test_slashes_redirect_nobody(api: Api) -> None:
    async with api.client() as client:
        for path in [*PATHS, "/healthz", "/readyz", "/docs", "/docs/errors", "/openapi.json"]:
            with_slash = await client.get(f"{path}/")
            assert with_slash.status_code == (await client.get(path)).status_code
            assert with_slash.status_code in (200, 401, 405)


async def test_every_answer_has_the_headers_of_safety(api: Api) -> None:
    async with api.client() as client:
        for path in ("/api/me", "/docs", "/nothing", "/readyz", "/metrics", "/api/deposit"):
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "access-control-allow-origin" not in headers
        assert (await client.get("/api/me")).headers["cache-control"] == "no-store"


async def test_our_own_pages_may_send(api: Api) -> None:
    user = await api.user()
    headers = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
    assert (await user.client.post("/api/accounts", json={}, headers=headers)).status_code == 201


async def test_metrics_count_requests_by_route(api: Api) -> None:
    user = await api.user()
    number = await user.account(balance="1")
    await user.client.get(f"/api/accounts/{number}")
    metrics = (await user.client.get("/metrics")).text
    shown = 'microfin_api_requests_total{method="GET",route="/api/accounts/{number}",status="200"}'
    assert shown in metrics
    assert 'microfin_api_operations_total{kind="deposit",status="settled"}' in metrics
    assert 'microfin_api_phase_seconds_count{phase="produce"}' in metrics
    assert "microfin_api_acknowledge_seconds_count" in metrics
    assert number not in metrics
