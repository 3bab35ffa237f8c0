"""One key, one operation: repeats get the first answer, other requests under it a problem."""

import asyncio

from support.api_under_test import Api, Ledger, User, running

KEY = "Idempotency-Key"


async def test_a_repeat_gets_the_first_answer(user: User) -> None:
    number = await user.account()
    body, headers = {"accountNumber": number, "amount": "5"}, {KEY: '"pay rent"'}
    first = await user.client.post("/api/deposit", json=body, headers=headers)
    await user.deposit(number, "1")
    other_form = {"accountNumber": number, "amount": 5.00}
    second = await user.client.post("/api/deposit", json=other_form, headers={KEY: "pay rent"})
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    assert first.headers[KEY] == '"pay rent"'
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert await user.balance(number) == "6.00"


async def test_a_rejection_is_repeated_too(user: User) -> None:
    number = await user.account()
    body, headers = {"accountNumber": number, "amount": "5"}, {KEY: "spend"}
    first = await user.client.post("/api/withdraw", json=body, headers=headers)
    await user.deposit(number, "100")
    second = await user.client.post("/api/withdraw", json=body, headers=headers)
    assert first.status_code == second.status_code == 422
    answered, repeated = first.json(), second.json()
    assert answered.pop("requestId") != repeated.pop("requestId")
    assert answered == repeated
    assert second.headers["idempotency-replayed"] == "true"
    assert await user.balance(number) == "100.00"


async def test_a_transfer_is_repeated_too(user: User) -> None:
    sender = await user.account(balance="50")
    for number in range(8):  # some stay on the partition, some leave it
        body = {
            "senderAccountNumber": sender,
            "receiverAccountNumber": await user.account(),
            "amount": "1",
        }
        headers = {KEY: f"transfer {number}"}
        first = await user.client.post("/api/transfer", json=body, headers=headers)
        second = await user.client.post("/api/transfer", json=body, headers=headers)
        assert first.status_code == second.status_code == 200
        assert first.json() == second.json()
        assert second.headers["idempotency-replayed"] == "true"
    assert await user.balance(sender) == "42.00"


async def test_an_account_is_opened_once(user: User) -> None:
    headers = {KEY: "my account"}
    first = await user.client.post("/api/accounts", json={}, headers=headers)
    second = await user.client.post("/api/accounts", headers=headers)
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert first.headers["location"] == f"/api/accounts/{first.json()['accountNumber']}"
    assert len((await user.client.get("/api/accounts")).json()["accounts"]) == 1


async def test_a_key_is_not_used_for_something_else(user: User) -> None:
    number, other = await user.account(balance="10"), await user.account()
    body, headers = {"accountNumber": number, "amount": "5"}, {KEY: "once"}
    assert (await user.client.post("/api/deposit", json=body, headers=headers)).status_code == 200
    attempts = [
        ("/api/deposit", {"accountNumber": number, "amount": "6"}),
        ("/api/deposit", {"accountNumber": other, "amount": "5"}),
        ("/api/withdraw", body),
        ("/api/accounts", {}),
    ]
    for path, changed in attempts:
        answer = await user.client.post(path, json=changed, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "key_reused")
        assert answer.headers[KEY] == "once"
    assert await user.balance(number) == "15.00"
    assert await user.balance(other) == "0.00"


async def test_another_body_is_refused_without_redis_too(ledger: Ledger) -> None:
    async with running(ledger.settings(redis="redis://127.0.0.1:1")) as api:
        user = await api.user()
        number = await user.account()
        headers = {KEY: "once"}
        for amount, status in (("5", 200), ("6", 422), ("5", 200)):
            body = {"accountNumber": number, "amount": amount}
            answer = await user.client.post("/api/deposit", json=body, headers=headers)
            assert answer.status_code == status, answer.text
        assert answer.headers["idempotency-replayed"] == "true"
        assert await user.balance(number) == "5.00"


async def test_a_key_is_its_users_own(api: Api, user: User) -> None:
    other = await api.user()
    for somebody in (user, other):
        number = await somebody.account()
        body = {"accountNumber": number, "amount": "5"}
        answer = await somebody.client.post("/api/deposit", json=body, headers={KEY: "same"})
        assert answer.status_code == 200
        assert "idempotency-replayed" not in answer.headers


async def test_many_at_once_take_effect_once(user: User) -> None:
    number = await user.account()
    body, headers = {"accountNumber": number, "amount": "5"}, {KEY: "all at once"}
    answers = await asyncio.gather(
        *(user.client.post("/api/deposit", json=body, headers=headers) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    replayed = [answer for answer in answers if "idempotency-replayed" in answer.headers]
    assert len(replayed) == 19
    assert await user.balance(number) == "5.00"


async def test_a_key_is_made_where_none_was_sent(user: User) -> None:
    number = await user.account()
    body = {"accountNumber": number, "amount": "5"}
    first = await user.client.post("/api/deposit", json=body)
    repeat = await user.client.post("/api/deposit", json=body, headers={KEY: first.headers[KEY]})
    assert repeat.json() == first.json()
    another = await user.client.post("/api/deposit", json=body)
    assert another.headers[KEY] != first.headers[KEY]
    assert await user.balance(number) == "10.00"


async def test_a_problem_carries_the_key_too(user: User) -> None:
    number = await user.account()
    body = {"accountNumber": number, "amount": "5"}
    answer = await user.client.post("/api/withdraw", json=body)
    assert answer.status_code == 422
    assert answer.headers[KEY]
