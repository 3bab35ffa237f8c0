"""What bad input gets: a clear problem, and no effect."""

from typing import Any

import pytest

from microfin.ledger.account_number import derive_account_number
from microfin.ledger.money import EXPONENTS, to_decimal_text
from support.api_answers import problem_of
from support.api_under_test import ORIGIN, PASSWORD, Api, User

FOREIGN_HOST = "http://evil.example"
NOBODYS = derive_account_number("nobody", 0)


DEPOSIT = b'{"accountNumber":"%b","amount":%b}'

BODIES: dict[str, tuple[bytes, int, str]] = {
    "no JSON": (b"{nonsense", 400, "malformed_json"),
    "empty": (b"", 400, "malformed_json"),
    "an array": (b"[]", 400, "invalid_body"),
    "a field missing": (b'{"amount":1}', 400, "invalid_body"),
    "a number as account": (b'{"accountNumber":1,"amount":1}', 400, "invalid_body"),
    "an object as amount": (DEPOSIT % (b"OWN", b"{}"), 400, "invalid_body"),
    "null as amount": (DEPOSIT % (b"OWN", b"null"), 400, "invalid_body"),
    "NaN": (DEPOSIT % (b"OWN", b"NaN"), 400, "malformed_json"),
    "NaN as text": (DEPOSIT % (b"OWN", b'"NaN"'), 400, "invalid_amount"),
    "Infinity": (DEPOSIT % (b"OWN", b"Infinity"), 400, "malformed_json"),
    "an exponent": (DEPOSIT % (b"OWN", b"1e2"), 400, "invalid_amount"),
    "an exponent of 0": (DEPOSIT % (b"OWN", b"1.0e0"), 400, "invalid_amount"),
    "an exponent as text": (DEPOSIT % (b"OWN", b'"1e2"'), 400, "invalid_amount"),
    "NUL in the amount": (DEPOSIT % (b"OWN", b'"1\\u0000"'), 400, "invalid_amount"),
    "NUL in the account": (DEPOSIT % (b"OWN\\u0000", b"1"), 400, "invalid_account_number"),
    "a raw NUL": (DEPOSIT % (b"OWN\0", b"1"), 400, "malformed_json"),
    "a lone surrogate": (DEPOSIT % (b"\\ud800", b"1"), 400, "malformed_json"),
    "a raw lone surrogate": (DEPOSIT % (b"\xed\xa0\x80", b"1"), 400, "malformed_json"),
    "no UTF-8": (DEPOSIT % (b"\xff", b"1"), 400, "malformed_json"),
    "zero": (DEPOSIT % (b"OWN", b"0"), 400, "invalid_amount"),
    "zero with decimals": (DEPOSIT % (b"OWN", b'"0.00"'), 400, "invalid_amount"),
    "negative": (DEPOSIT % (b"OWN", b"-1"), 400, "invalid_amount"),
    "huge": (DEPOSIT % (b"OWN", b"1" * 30), 400, "invalid_amount"),
    "over the limit": (DEPOSIT % (b"OWN", b"9" * 16), 422, "balance_limit"),
    "five decimals": (DEPOSIT % (b"OWN", b"0.00001"), 400, "invalid_amount"),
    "three decimals of EUR": (DEPOSIT % (b"OWN", b"0.001"), 422, "too_many_decimals"),
    "a bad check digit": (DEPOSIT % (b"100000000009", b"1"), 400, "invalid_account_number"),
    "an unknown account": (DEPOSIT % (NOBODYS.encode(), b"1"), 404, "account_not_found"),
    "a foreign account": (DEPOSIT % (b"FOREIGN", b"1"), 404, "account_not_found"),
    "a key twice": (b'{"accountNumber":"OWN","amount":1,"amount":2}', 400, "malformed_json"),
    "nested too deeply": (
        b'{"accountNumber":"OWN","amount":' + b"[" * 7000 + b"]" * 7000 + b"}",
        400,
        "malformed_json",
    ),
    "too large": (
        b'{"accountNumber":"OWN","amount":"' + b"1" * 20_000 + b'"}',
        413,
        "body_too_large",
    ),
}


@pytest.mark.parametrize("path", ["/api/deposit", "/api/withdraw"])
@pytest.mark.parametrize("case", BODIES)
async def test_bodies(api: Api, user: User, path: str, case: str) -> None:
    body, status, code = BODIES[case]
    if path == "/api/withdraw" and code == "balance_limit":
        code = "insufficient_funds"
    other = await api.user()
    own, foreign = await user.account(balance="5"), await other.account(balance="5")
    body = body.replace(b"OWN", own.encode()).replace(b"FOREIGN", foreign.encode())
    assert problem_of(await user.client.post(path, content=body), status)["code"] == code
    assert await user.balance(own) == "5.00"
    assert await other.balance(foreign) == "5.00"


TRANSFERS: dict[str, tuple[str, str, str, int, str]] = {
    "to itself": ("OWN", "OWN", "1", 400, "same_account"),
    "to a bad check digit": ("OWN", "100000000009", "1", 400, "invalid_account_number"),
    "from a bad check digit": ("100000000009", "OWN", "1", 400, "invalid_account_number"),
    "from an unknown account": (NOBODYS, "OWN", "1", 404, "account_not_found"),
    "from a foreign account": ("FOREIGN", "OWN", "1", 404, "account_not_found"),
    "to an unknown account": ("OWN", NOBODYS, "1", 422, "account_not_found"),
    "to another currency": ("OWN", "DOLLARS", "1", 422, "currency_mismatch"),
    "of more than there is": ("OWN", "FOREIGN", "5.01", 422, "insufficient_funds"),
    "of a negative amount": ("OWN", "FOREIGN", "-1", 400, "invalid_amount"),
}


@pytest.mark.parametrize("case", TRANSFERS)
async def test_transfers(api: Api, user: User, case: str) -> None:
    sender, receiver, amount, status, code = TRANSFERS[case]
    other = await api.user()
    accounts = {
        "OWN": await user.account(balance="5"),
        "FOREIGN": await other.account(balance="5"),
        "DOLLARS": await other.account("USD"),
    }
    body = {
        "senderAccountNumber": accounts.get(sender, sender),
        "receiverAccountNumber": accounts.get(receiver, receiver),
        "amount": amount,
    }
    problem = problem_of(await user.client.post("/api/transfer", json=body), status)
    assert problem["code"] == code
    assert await user.balance(accounts["OWN"]) == "5.00"
    assert await other.balance(accounts["FOREIGN"]) == "5.00"
    assert await other.balance(accounts["DOLLARS"]) == "0.00"


async def test_missing_fields_are_named(user: User) -> None:
    number = await user.account(balance="5")
    body = {"accountNumber": number, "amount": "7.5"}
    problem = problem_of(await user.client.post("/api/withdraw", json=body), 422)
    assert (problem["needed"], problem["available"]) == ("7.50", "5.00")
    assert problem["operationStatus"] == "rejected"
    shown = (await user.client.get(f"/api/operations/{problem['operationId']}")).json()
    assert (shown["status"], shown["reason"]) == ("rejected", "insufficient_funds")
    assert (shown["needed"], shown["available"]) == ("7.50", "5.00")


@pytest.mark.parametrize("currency", ["JPY", "EUR", "BHD", "CLF"])
async def test_an_amount_beyond_every_account_is_refused_at_once(user: User, currency: str) -> None:
    """Scaled by the currency's decimals it may be more than 64 bits hold."""
    number = await user.account(currency)
    largest = "9" * 16 + ("." + "9" * EXPONENTS[currency] if EXPONENTS[currency] else "")
    body = {"accountNumber": number, "amount": largest}
    problem = problem_of(await user.client.post("/api/withdraw", json=body), 422)
    assert problem["code"] == "insufficient_funds"
    assert problem["available"] == to_decimal_text(0, currency)
    fits = EXPONENTS[currency] < 3
    assert problem.get("needed") == (largest if fits else None)
    assert "None" not in problem["detail"]
    shown = (await user.client.get(f"/api/operations/{problem['operationId']}")).json()
    assert (shown["reason"], shown.get("needed")) == ("insufficient_funds", problem.get("needed"))
    refused = problem_of(await user.client.post("/api/deposit", json=body), 422)
    assert refused["code"] == "balance_limit"


async def test_a_currency_without_decimals_accepts_none(user: User) -> None:
    number = await user.account("JPY")
    body = {"accountNumber": number, "amount": "1.5"}
    problem = problem_of(await user.client.post("/api/deposit", json=body), 422)
    assert problem["code"] == "too_many_decimals"
    assert (await user.deposit(number, "15.00"))["balance"] == "15"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_content_types(user: User, content_type: str) -> None:
    number = await user.account()
    answer = await user.client.post(
        "/api/deposit",
        content=f'{{"accountNumber":"{number}","amount":1}}',
        headers={"Content-Type": content_type},
    )
    assert problem_of(answer, 415)["code"] == "not_json"
    form = await user.client.post("/api/accounts", headers={"Content-Type": "text/plain"})
    assert problem_of(form, 415)["code"] == "not_json"


async def test_other_origins(api: Api, user: User) -> None:
    number = await user.account()
    body = {"accountNumber": number, "amount": "1"}
    for headers in ({"Origin": FOREIGN_HOST}, {"Sec-Fetch-Site": "cross-site"}):
        for path in ("/api/deposit", "/api/accounts", "/api/accountGeneration", "/api/signout"):
            answer = await user.client.post(path, json=body, headers=headers)
            assert problem_of(answer, 403)["code"] == "cross_origin"
        answer = await user.client.get("/api/accountGeneration", headers=headers)
        assert problem_of(answer, 403)["code"] == "cross_origin"
    assert await user.balance(number) == "0.00"
    async with api.client(Authorization=f"Bearer {user.session_id}") as bearer:
        answer = await bearer.post("/api/deposit", json=body, headers={"Origin": FOREIGN_HOST})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "authorization", ["", "Basic x", "Basic", "Bearer", "Bearer ", "Bearer x", "Digest a=b", "x"]
)
async def test_only_the_bearer_that_is_the_session_excuses_the_origin(
    api: Api, user: User, authorization: str
) -> None:
    number = await user.account()
    body = {"accountNumber": number, "amount": "1"}
    headers = {"Origin": FOREIGN_HOST, "Authorization": authorization}
    for path in ("/api/deposit", "/api/accounts", "/api/accountGeneration", "/api/signout"):
        answer = await user.client.post(path, json=body, headers=headers)
        assert problem_of(answer, 403)["code"] == "cross_origin"
    answer = await user.client.get("/api/accountGeneration", headers=headers)
    assert problem_of(answer, 403)["code"] == "cross_origin"
    assert await user.balance(number) == "0.00"


async def test_a_page_of_another_origin_signs_nobody_in(api: Api, user: User) -> None:
    credentials = {"email": user.email, "password": PASSWORD}
    new = {"name": "Eve", "email": "eve@example.com", "password": PASSWORD}
    async with api.client(Origin=FOREIGN_HOST) as client:
        for authorization in ("", "Bearer x", f"Bearer {user.session_id}"):
            headers = {"Authorization": authorization}
            for path, body in (("/api/signin", credentials), ("/api/signup", new)):
                answer = await client.post(path, json=body, headers=headers)
                assert problem_of(answer, 403)["code"] == "cross_origin"


async def test_two_origins_are_none(user: User) -> None:
    headers = [("Origin", ORIGIN), ("Origin", FOREIGN_HOST)]
    answer = await user.client.post("/api/accounts", json={}, headers=headers)
    assert problem_of(answer, 403)["code"] == "cross_origin"


@pytest.mark.parametrize("session_id", ["", "forged", "A" * 48, "\xff"])
async def test_forged_sessions(api: Api, user: User, session_id: str) -> None:
    number = await user.account()
    async with api.client() as client:
        headers = {b"Cookie": f"sessionId={session_id}".encode("latin-1")}
        body = {"accountNumber": number, "amount": "1"}
        answer = await client.post("/api/deposit", json=body, headers=headers)
        assert problem_of(answer, 401)["code"] == "not_signed_in"
        assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/api/me", "/api/accounts", f"/api/accounts/{number}"):
            problem_of(await client.get(path, headers=headers), 401)


async def test_what_is_not_there(user: User) -> None:
    assert problem_of(await user.client.get("/api/nothing"), 404)["code"] == "not_found"
    assert problem_of(await user.client.get("//"), 404)["code"] == "not_found"
    answer = await user.client.delete("/api/deposit")
    assert problem_of(answer, 405)["code"] == "method_not_allowed"
    assert answer.headers["allow"] == "POST"
    answer = await user.client.put("/api/accounts", json={})
    assert problem_of(answer, 405)["code"] == "method_not_allowed"
    assert answer.headers["allow"] == "GET, HEAD, POST"


async def test_a_head_request_opens_no_account(user: User) -> None:
    assert (await user.client.head("/api/accountGeneration")).status_code == 405
    assert (await user.client.get("/api/accounts")).json()["accounts"] == []


@pytest.mark.parametrize(
    "number", ["1", "100000000009", "abc", NOBODYS, "%00", "%ff", "\uff11" * 12]
)
async def test_accounts_that_are_not_there(user: User, number: str) -> None:
    for path in (f"/api/accounts/{number}", f"/api/accounts/{number}/entries"):
        assert problem_of(await user.client.get(path), 404)["code"] == "account_not_found"


async def test_foreign_accounts_are_not_there(api: Api, user: User) -> None:
    other = await api.user()
    number = await other.account(balance="5")
    for path in (f"/api/accounts/{number}", f"/api/accounts/{number}/entries"):
        problem_of(await user.client.get(path), 404)


async def test_foreign_operations_are_not_there(api: Api, user: User) -> None:
    other = await api.user()
    operation = (await other.deposit(await other.account(), "5"))["operationId"]
    problem = problem_of(await user.client.get(f"/api/operations/{operation}"), 404)
    assert problem["code"] == "operation_not_found"
    for unknown in ("0" * 32, "x", "0" * 31, "%00", operation.upper() + "0"):
        problem_of(await user.client.get(f"/api/operations/{unknown}"), 404)


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=201", "cursor=x", "from=now", "to=1", "kind=gift", "at=never"),
        *("order=up", "order=", "totals=yes"),
    ],
)
async def test_unfit_parameters(user: User, query: str) -> None:
    number = await user.account()
    answer = await user.client.get(f"/api/accounts/{number}/entries?{query}")
    assert problem_of(answer, 400)["code"] == "invalid_parameter"


MEMBERS = {
    "/api/accounts": {"curency": "USD"},
    "/api/accountGeneration": {"currency": "USD", "curency": "USD"},
    "/api/deposit": {"accountNumber": NOBODYS, "amount": "1", "curency": "USD"},
    "/api/withdraw": {"accountNumber": NOBODYS, "amount": "1", "curency": "USD"},
    "/api/transfer": {
        "senderAccountNumber": NOBODYS,
        "receiverAccountNumber": NOBODYS,
        "amount": "1",
        "curency": "USD",
    },
    "/api/signin": {"email": "a@example.com", "password": "x", "curency": "USD"},
    "/api/signup": {"name": "A", "email": "b@example.com", "password": PASSWORD, "curency": 1},
}


@pytest.mark.parametrize("path", MEMBERS)
async def test_an_unknown_member_is_named(user: User, path: str) -> None:
    problem = problem_of(await user.client.post(path, json=MEMBERS[path]), 400)
    assert problem["code"] == "invalid_body"
    assert "`curency`" in problem["detail"]
    assert (await user.client.get("/api/accounts")).json()["accounts"] == []


@pytest.mark.parametrize("query", ["lmit=5", "limit=5&lmit=5", "limit=5&limit=6", "LIMIT=5", "="])
async def test_unknown_parameters(user: User, query: str) -> None:
    number = await user.account()
    problem = problem_of(await user.client.get(f"/api/accounts/{number}/entries?{query}"), 400)
    assert problem["code"] == "invalid_parameter"
    assert repr(query.rpartition("&")[2].partition("=")[0]) in problem["detail"]
    for path in ("/api/accounts", "/api/me", f"/api/accounts/{number}", "/docs", "/openapi.json"):
        problem = problem_of(await user.client.get(f"{path}?x=1"), 400)
        assert problem["code"] == "invalid_parameter"
    deposit = {"accountNumber": number, "amount": "1"}
    problem_of(await user.client.post("/api/deposit?prefer=respond-async", json=deposit), 400)
    problem_of(await user.client.get("/api/accountGeneration?currency=USD"), 400)
    assert await user.balance(number) == "0.00"
    assert len((await user.client.get("/api/accounts")).json()["accounts"]) == 1


async def test_probes_are_answered_whatever_they_add(api: Api) -> None:
    async with api.client() as client:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await client.get(f"{path}?x=1")).status_code == 200


@pytest.mark.parametrize("at", ["2999-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"])
async def test_nobody_knows_the_balance_of_tomorrow(user: User, at: str) -> None:
    number = await user.account()
    problem = problem_of(await user.client.get(f"/api/accounts/{number}/entries?at={at}"), 400)
    assert (problem["code"], "future" in problem["detail"]) == ("invalid_parameter", True)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "identity, gzip", "x", "aes128gcm"])
async def test_bodies_come_as_they_are(user: User, encoding: str) -> None:
    number = await user.account()
    deposit = {"accountNumber": number, "amount": "1"}
    for path in ("/api/deposit", "/api/accounts", "/api/signin"):
        headers = {"Content-Encoding": encoding}
        answer = await user.client.post(path, json=deposit, headers=headers)
        assert problem_of(answer, 415)["code"] == "encoded_body"
        assert answer.headers["accept-encoding"] == "identity"
    headers = {"Content-Encoding": "identity"}
    answer = await user.client.post("/api/deposit", json=deposit, headers=headers)
    assert answer.status_code == 200


async def test_a_key_is_used_up_by_a_number_that_was_mistyped(user: User) -> None:
    number = await user.account()
    headers = {"Idempotency-Key": "mistyped"}
    mistyped = {"accountNumber": NOBODYS, "amount": "1"}
    problem = problem_of(
        await user.client.post("/api/deposit", json=mistyped, headers=headers), 404
    )
    assert problem["code"] == "account_not_found"
    assert "used up" in problem["detail"]
    assert "new Idempotency-Key" in problem["detail"]
    right = {"accountNumber": number, "amount": "1"}
    problem = problem_of(await user.client.post("/api/deposit", json=right, headers=headers), 422)
    assert problem["code"] == "key_reused"


async def test_an_unknown_currency_opens_nothing(user: User) -> None:
    for currency in ("XXX", "eur", "", "\0"):
        answer = await user.client.post("/api/accounts", json={"currency": currency})
        assert problem_of(answer, 422)["code"] == "unknown_currency"
    answer = await user.client.post("/api/accounts", json={"currency": 5})
    assert problem_of(answer, 400)["code"] == "invalid_body"
    assert (await user.client.get("/api/accounts")).json()["accounts"] == []


@pytest.mark.parametrize(
    "change",
    [{"email": "x"}, {"email": "a\0@b.de"}, {"name": ""}, {"password": "short"}, {"name": 1}],
)
async def test_sign_ups(api: Api, change: dict[str, Any]) -> None:
    body = {"name": "Anna", "email": "anna@example.com", "password": "long enough", **change}
    async with api.client() as client:
        answer = await client.post("/api/signup", json=body)
        assert problem_of(answer, 400)["code"] == "invalid_body"
