"""Session ids, `at` tokens, keys and origins: what is decided without asking anybody."""

import time
from collections.abc import Mapping

import pytest
from starlette.requests import Request

from microfin.kafka.producer import Appended
from microfin.process.settings import ApiSettings
from microfin.redis.guarded import GuardedRedis
from microfin_api.commands.at_token import At, AtTokens
from microfin_api.commands.idempotency import read_key
from microfin_api.endpoints.change import prefers_async
from microfin_api.http.client_address import TrustedProxies
from microfin_api.http.parameters import read_kind, read_moment, read_number
from microfin_api.http.problems import Problem
from microfin_api.people.cross_origin import OriginRule
from microfin_api.people.sessions import Sessions
from microfin_api.services import Services
from microfin_api.signing import Signer
from microfin_api.uuid7 import uuid7

SETTINGS = ApiSettings(secret="s" * 32)
OTHERS = ApiSettings(secret="t" * 32)


def request_of(
    headers: Mapping[str, str] | list[tuple[str, str]] = (),  # type: ignore[assignment]
    client: str = "127.0.0.1",
    query: str = "",
) -> Request:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return Request(
        {
            "type": "http",
            "method": "POST",
            "scheme": "http",
            "path": "/api/deposit",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
            "client": (client, 1234),
            "server": ("127.0.0.1", 8080),
        }
    )


def sessions_of(settings: ApiSettings) -> Sessions:
    return Sessions(settings, None, GuardedRedis(settings))


def test_only_ids_with_our_tag_are_ours() -> None:
    sessions = sessions_of(SETTINGS)
    session_id = sessions.new_id()
    assert sessions.is_ours(session_id)
    assert not sessions_of(OTHERS).is_ours(session_id)
    for place in range(len(session_id)):
        changed = "A" if session_id[place] != "A" else "B"
        assert not sessions.is_ours(session_id[:place] + changed + session_id[place + 1 :])
    for forged in ("", "x", session_id[:-1], session_id + "A", "é" * len(session_id), "\0"):
        assert not sessions.is_ours(forged)


def test_without_a_secret_nothing_starts() -> None:
    with pytest.raises(ValueError, match="MICROFIN_SECRET"):
        Services(ApiSettings())
    with pytest.raises(ValueError, match="32 characters"):
        ApiSettings(secret="short")


def test_a_bearer_token_comes_before_the_cookie() -> None:
    sessions = sessions_of(SETTINGS)
    token, cookie = sessions.new_id(), sessions.new_id()
    by_cookie = {"Cookie": f"a=b; sessionId={cookie}"}
    for headers, session_ids in (
        ({"Authorization": f"Bearer {token}", **by_cookie}, (token,)),
        ({"Authorization": f"bearer  {token}"}, (token,)),
        ({"Authorization": "Bearer ", **by_cookie}, (cookie,)),
        ({"Authorization": f"Bearer {token}x", **by_cookie}, (cookie,)),
        ({"Authorization": f"Basic {token}", **by_cookie}, (cookie,)),
        (by_cookie, (cookie,)),
        ({"Authorization": "Basic abc"}, ()),
    ):
        credential = sessions.credential_of(request_of(headers))
        assert credential.session_ids == session_ids
        assert credential.by_bearer == (session_ids == (token,))


def test_only_so_many_cookies_are_looked_at() -> None:
    sessions = sessions_of(SETTINGS)
    ours = [sessions.new_id() for _ in range(8)]
    some = "; ".join(f"sessionId={it}" for it in ours)
    assert sessions.credential_of(request_of({"Cookie": some})).session_ids == tuple(ours[:4])
    many = "; ".join(f"sessionId={number}" for number in range(10_000))
    late = request_of({"Cookie": f"{many}; sessionId={ours[0]}"})
    assert sessions.credential_of(late).session_ids == ()
    quoted = request_of([("Cookie", f'sessionId="{ours[0]}"'), ("Cookie", f"sessionId={ours[1]}")])
    assert sessions.credential_of(quoted).session_ids == tuple(ours[:2])


@pytest.mark.parametrize(
    ("setting", "headers", "client", "secure"),
    [
        ("auto", {}, "127.0.0.1", False),
        ("auto", {"X-Forwarded-Proto": "https"}, "127.0.0.1", True),
        ("auto", {"X-Forwarded-Proto": "https"}, "203.0.113.9", False),
        ("always", {}, "127.0.0.1", True),
        ("never", {"X-Forwarded-Proto": "https"}, "127.0.0.1", False),
    ],
)
def test_the_cookie_is_secure_behind_tls(
    setting: str, headers: dict[str, str], client: str, secure: bool
) -> None:
    sessions = sessions_of(
        ApiSettings.model_validate({"secret": "s" * 32, "cookie_secure": setting})
    )
    cookie = sessions.cookie("id", request_of(headers, client))
    assert cookie.startswith("sessionId=id; Path=/; ")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert cookie.endswith("; Secure") is secure


def test_at_tokens_are_for_one_operation_of_one_user() -> None:
    tokens = AtTokens(SETTINGS)
    token = tokens.make("a" * 32, "anna", b"\x05" * 16, Appended(3, 17, 0))
    assert tokens.read(token, "a" * 32, "anna") == At(3, 17, b"\x05" * 16)
    assert tokens.read(token, "b" * 32, "anna") is None
    assert tokens.read(token, "a" * 32, "bert") is None
    assert AtTokens(OTHERS).read(token, "a" * 32, "anna") is None
    tag = token.rpartition(".")[2]
    for forged in ("", ".", "..", f"3.18.{tag}", "3.17.é", f"{token}.x", token.replace("5", "6")):
        assert tokens.read(forged, "a" * 32, "anna") is None


def test_at_tokens_are_short_enough_for_the_largest_place() -> None:
    token = AtTokens(SETTINGS).make("a" * 32, "f" * 32, b"\xff" * 16, Appended(2**31, 2**63, 0))
    assert len(token) <= 128


def test_at_tokens_of_two_releases_are_understood_by_both() -> None:
    tokens, signer = AtTokens(SETTINGS), Signer(SETTINGS, "microfin-at")
    operation, user = "a" * 32, "anna"
    old = f"3.17.{signer.tag(f'3.17.{operation}.{user}')}"
    assert tokens.read(old, operation, user) == At(3, 17, b"")
    # How the release before checks a token.
    partition, offset, tag = tokens.make(operation, user, b"5" * 16, Appended(3, 17, 0)).split(".")
    assert signer.is_tag(tag, f"{partition}.{offset}.{operation}.{user}")


FORWARDED_FOR = "X-Forwarded-For"


@pytest.mark.parametrize(
    ("headers", "client", "address"),
    [
        ([], "203.0.113.9", "203.0.113.9"),
        ([(FORWARDED_FOR, "198.51.100.1")], "203.0.113.9", "203.0.113.9"),
        ([(FORWARDED_FOR, "198.51.100.1")], "10.0.0.1", "198.51.100.1"),
        ([(FORWARDED_FOR, "6.6.6.6, 198.51.100.1")], "10.0.0.1", "198.51.100.1"),
        ([(FORWARDED_FOR, "198.51.100.1, 10.0.0.2")], "10.0.0.1", "198.51.100.1"),
        ([(FORWARDED_FOR, "nonsense")], "10.0.0.1", "10.0.0.1"),
        ([], "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ([], "::ffff:203.0.113.9", "203.0.113.9"),
        # Several lines are one list, in their order (RFC 9110, 5.3).
        ([(FORWARDED_FOR, "6.6.6.6"), (FORWARDED_FOR, "198.51.100.1")], "10.0.0.1", "198.51.100.1"),
        (
            [(FORWARDED_FOR, "6.6.6.6, 198.51.100.1"), (FORWARDED_FOR, "10.0.0.2,10.0.0.3")],
            "10.0.0.1",
            "198.51.100.1",
        ),
        # An unreadable hop ends the search: everything before it may be invented.
        ([(FORWARDED_FOR, "6.6.6.6, nonsense")], "10.0.0.1", "10.0.0.1"),
        ([(FORWARDED_FOR, "6.6.6.6, unknown, 10.0.0.2")], "10.0.0.1", "10.0.0.2"),
        ([(FORWARDED_FOR, "6.6.6.6,")], "10.0.0.1", "10.0.0.1"),
        ([(FORWARDED_FOR, "6.6.6.6:port")], "10.0.0.1", "10.0.0.1"),
        ([(FORWARDED_FOR, "6.6.6.6:70000")], "10.0.0.1", "10.0.0.1"),
        # A port does not belong to the address.
        ([(FORWARDED_FOR, "6.6.6.6, 198.51.100.1:4711")], "10.0.0.1", "198.51.100.1"),
        ([(FORWARDED_FOR, "198.51.100.1:1, 10.0.0.2:2")], "10.0.0.1", "198.51.100.1"),
        ([(FORWARDED_FOR, "[2001:db8:1:2::3]:4711")], "10.0.0.1", "2001:db8:1:2::/64"),
        ([(FORWARDED_FOR, "[2001:db8:1:2::3]")], "10.0.0.1", "2001:db8:1:2::/64"),
        ([(FORWARDED_FOR, "2001:db8:1:2::3")], "10.0.0.1", "2001:db8:1:2::/64"),
        ([(FORWARDED_FOR, "[::ffff:198.51.100.1]:1")], "10.0.0.1", "198.51.100.1"),
        ([(FORWARDED_FOR, "fe80::1%eth0")], "10.0.0.1", "10.0.0.1"),
        # Forwarded (RFC 7239), where it is all that was sent: the usual proxies pass a client's on.
        ([("Forwarded", "for=198.51.100.1")], "203.0.113.9", "203.0.113.9"),
        ([("Forwarded", "for=198.51.100.1")], "10.0.0.1", "198.51.100.1"),
        ([("Forwarded", 'For="198.51.100.1:4711";proto=https')], "10.0.0.1", "198.51.100.1"),
        (
            [("Forwarded", 'proto=https; FOR="[2001:db8:1:2::3]:1"')],
            "10.0.0.1",
            "2001:db8:1:2::/64",
        ),
        ([("Forwarded", "for=6.6.6.6, for=198.51.100.1;by=10.0.0.2")], "10.0.0.1", "198.51.100.1"),
        (
            [("Forwarded", "for=6.6.6.6"), ("Forwarded", "for=198.51.100.1")],
            "10.0.0.1",
            "198.51.100.1",
        ),
        ([("Forwarded", "for=198.51.100.1, for=10.0.0.2")], "10.0.0.1", "198.51.100.1"),
        ([("Forwarded", "for=6.6.6.6, for=unknown")], "10.0.0.1", "10.0.0.1"),
        ([("Forwarded", "for=6.6.6.6, for=_hidden")], "10.0.0.1", "10.0.0.1"),
        ([("Forwarded", "for=6.6.6.6, by=10.0.0.2")], "10.0.0.1", "10.0.0.1"),
        ([("Forwarded", 'for=6.6.6.6, for="198.51.100.1')], "10.0.0.1", "10.0.0.1"),
        ([("Forwarded", 'for=198.51.100.1;host="a, for=6.6.6.6"')], "10.0.0.1", "198.51.100.1"),
        ([("Forwarded", 'for=198.51.100.1;host="a\\", for=6.6.6.6"')], "10.0.0.1", "198.51.100.1"),
        ([("Forwarded", "for=198.51.100.1;for=6.6.6.6")], "10.0.0.1", "10.0.0.1"),
        (
            [(FORWARDED_FOR, "198.51.100.1"), ("Forwarded", "for=6.6.6.6")],
            "10.0.0.1",
            "198.51.100.1",
        ),
        # A socket of this machine has no address; nobody else can speak through it.
        ([(FORWARDED_FOR, "6.6.6.6, 198.51.100.1")], "", "unknown"),
    ],
)
def test_only_trusted_proxies_say_who_the_client_is(
    headers: list[tuple[str, str]], client: str, address: str
) -> None:
    assert TrustedProxies("10.0.0.0/8").client_of(request_of(headers, client)) == address


def test_a_client_without_an_address_is_unknown() -> None:
    request = request_of([(FORWARDED_FOR, "6.6.6.6")])
    request.scope["client"] = None
    assert TrustedProxies("10.0.0.0/8").client_of(request) == "unknown"


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        ([("X-Forwarded-Proto", "https")], "https"),
        ([("X-Forwarded-Proto", "http"), ("X-Forwarded-Proto", "https")], "https"),
        ([("X-Forwarded-Proto", "https, HTTP")], "http"),
        ([("Forwarded", "for=198.51.100.1;proto=HTTPS")], "https"),
        ([("Forwarded", "for=1.1.1.1;proto=http, for=198.51.100.1;proto=https")], "https"),
        ([("X-Forwarded-Proto", "nonsense")], "http"),
        ([("X-Forwarded-Proto", "http"), ("Forwarded", "proto=https")], "http"),
        ([("X-Forwarded-For", "198.51.100.1"), ("Forwarded", "proto=https")], "http"),
    ],
)
def test_trusted_proxies_say_how_the_client_came(
    headers: list[tuple[str, str]], scheme: str
) -> None:
    proxies = TrustedProxies("10.0.0.0/8")
    assert proxies.scheme_of(request_of(headers, "10.0.0.1")) == scheme
    assert proxies.scheme_of(request_of(headers, "203.0.113.9")) == "http"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "http://bank.example"}, True),
        ({"Origin": "HTTP://BANK.example"}, True),
        ({"Origin": "https://bank.example"}, False),
        ({"Origin": "https://bank.example", "X-Forwarded-Proto": "https"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://bank.example.evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://evil.example", "Authorization": "Bearer x"}, False),
        ({"Origin": "http://bank.example:80"}, True),
        ({"Origin": "http://bank.example", "Host": "bank.example:80"}, True),
        ({"Origin": "http://bank.example", "Host": "BANK.example:080"}, True),
        ({"Origin": "http://bank.example:8000", "Host": "bank.example:8000"}, True),
        ({"Origin": "http://bank.example:8000", "Host": "bank.example"}, False),
        ({"Origin": "http://bank.example:443"}, False),
        ({"Origin": "http://bank.example:0"}, False),
        (
            {
                "Origin": "https://bank.example",
                "Host": "bank.example:443",
                "X-Forwarded-Proto": "https",
            },
            True,
        ),
        ({"Origin": "http://[2001:DB8:0::1]", "Host": "[2001:db8::1]:80"}, True),
        ({"Origin": "http://[2001:db8::2]", "Host": "[2001:db8::1]"}, False),
        ({"Origin": "http://evil@bank.example"}, False),
        ({"Origin": "http://bank.example/"}, False),
        ({"Origin": "http://bank.example?"}, False),
        ({"Origin": "http://bank.example:"}, False),
        ({"Origin": "http://bank.example:x"}, False),
        ({"Origin": "http://b\tank.example"}, False),
        ({"Origin": "http://"}, False),
        ({"Origin": "http://", "Host": ""}, False),
        ({"Origin": "null", "Host": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "https://app.example:443"}, True),
        ({"Origin": "https://APP.example"}, True),
        ({"Origin": "https://app.example"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
    ],
)
def test_other_origins_are_refused(headers: dict[str, str], allowed: bool) -> None:
    rule = OriginRule("https://app.example", TrustedProxies("127.0.0.0/8"))
    request = request_of({"Host": "bank.example", **headers})
    if allowed:
        rule.check(request)
    else:
        with pytest.raises(Problem, match="cross_origin"):
            rule.check(request)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("abc", "abc"),
        ("a b", "a b"),
        ('"abc"', "abc"),
        (r'"a\"b\\c"', r'a"b\c'),
        ("x" * 255, "x" * 255),
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
    ],
)
def test_keys_are_read(header: str, text: str) -> None:
    key = read_key(request_of({"Idempotency-Key": header}))
    assert (key.text, key.header, key.from_client) == (text, header, True)


@pytest.mark.parametrize(
    "header", ["", '""', '"abc', '"a"b"', r'"a\b"', "x" * 256, "sch\xf6n", "a\tb", "a\0b"]
)
def test_unfit_keys_are_refused(header: str) -> None:
    with pytest.raises(Problem, match="invalid_idempotency_key"):
        read_key(request_of({"Idempotency-Key": header}))


def test_two_keys_are_refused() -> None:
    with pytest.raises(Problem, match="invalid_idempotency_key"):
        read_key(request_of([("Idempotency-Key", "a"), ("Idempotency-Key", "b")]))


def test_a_missing_key_is_made() -> None:
    first, second = read_key(request_of()), read_key(request_of())
    assert first.text != second.text
    assert not first.from_client


def test_uuids_of_version_7_sort_by_time() -> None:
    first = uuid7()
    time.sleep(0.002)
    second = uuid7()
    assert first < second
    assert (first.version, first.variant) == (7, second.variant)
    assert abs((first.int >> 80) / 1000 - time.time()) < 60


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("respond-async", True),
        ("wait=5, respond-async", True),
        ("Respond-Async; x=y", True),
        ("return=minimal", False),
        ("", False),
    ],
)
def test_a_preference_for_202_is_read(header: str, wanted: bool) -> None:
    assert prefers_async(request_of({"Prefer": header})) is wanted


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1500),
        ("1970-01-01t01:00:00.123456789%2B01:00", 123),
        ("1969-12-31T23:59:59.999Z", -1),
    ],
)
def test_times_are_read(text: str, milliseconds: int) -> None:
    assert read_moment(request_of(query=f"at={text}"), "at") == milliseconds


@pytest.mark.parametrize(
    "query",
    [
        "at=",
        "at=yesterday",
        "at=2026-11-22",
        "at=2026-11-22T10:00:00",
        "at=2026-02-30T10:00:00Z",
        "at=0001-01-01T00:00:00%2B23:59",
        "at=20261122T100000Z",
    ],
)
def test_unfit_times_are_refused(query: str) -> None:
    with pytest.raises(Problem, match="invalid_parameter"):
        read_moment(request_of(query=query), "at")


@pytest.mark.parametrize("text", ["0", "-1", "201", "1.5", "x", "", "%D9%A1", "9" * 30])
def test_unfit_numbers_are_refused(text: str) -> None:
    with pytest.raises(Problem, match="invalid_parameter"):
        read_number(request_of(query=f"limit={text}"), "limit", 200)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(Problem, match="invalid_parameter"):
        read_kind(request_of(query="kind=gift"))
