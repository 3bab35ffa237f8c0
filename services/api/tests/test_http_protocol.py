"""The HTTP protocol at a socket: nothing after a message is read as one unless it has ended."""

import asyncio
import itertools
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microfin_api.http import protocol
from support.conversation import LAST, Answered, Conversation, Echo, converse

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

OFFERS = (None, "h2c", "websocket", "TLS/1.3, h2c")
CONNECTIONS = (None, "Upgrade", "Upgrade, HTTP2-Settings", "keep-alive, uPGRADE")
FRAMINGS = ("none", "length", "chunked", "trailers")


class Message(NamedTuple):
    """A request, how it gives its body's length, and what it offers."""

    path: str = "/it"
    method: str = "POST"
    framing: str = "length"
    body: bytes = SMUGGLED
    offer: str | None = None
    connection: str | None = None
    http2_settings: bool = False
    expect: bool = False

    @property
    def read(self) -> str:
        return "" if self.framing == "none" else self.body.decode("latin-1")

    def encoded(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: x"]
        if self.offer is not None:
            lines.append(f"Upgrade: {self.offer}")
        if self.connection is not None:
            lines.append(f"Connection: {self.connection}")
        if self.http2_settings:
            lines.append("HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA")
        if self.expect:
            lines.append("Expect: 100-continue")
        if self.framing == "none":
            return "\r\n".join([*lines, "", ""]).encode()
        if self.framing == "length":
            lines.append(f"Content-Length: {len(self.body)}")
            return "\r\n".join([*lines, "", ""]).encode() + self.body
        lines.append("Transfer-Encoding: chunked")
        chunks = [self.body[:7], self.body[7:]]
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
        trailers = b"Authorization: Bearer x\r\n" if self.framing == "trailers" else b""
        return "\r\n".join([*lines, "", ""]).encode() + body + b"0\r\n" + trailers + b"\r\n"


def expect_answers(answers: list[Answered], messages: list[Message]) -> None:
    """Each answer must be that of its own request, and there must be no other."""
    answered = [(status, said["method"], said["path"], said["body"]) for status, said in answers]
    asked = [(200, it.method, it.path, it.read) for it in messages]
    assert answered == [*asked, (200, "GET", "/last", "")]
    for _, said in answers:
        assert "authorization" not in said["headers"]  # it came as a trailer


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_every_offer_byte_by_byte(framing: str) -> None:
    """An offer to upgrade is ignored (RFC 9110, 7.8), and the message's body stays its body."""
    for offer, connection, http2_settings, expect in itertools.product(
        OFFERS, CONNECTIONS, (False, True), (False, True)
    ):
        message = Message(
            framing=framing,
            offer=offer,
            connection=connection,
            http2_settings=http2_settings,
            expect=expect,
        )
        sent = message.encoded() + LAST
        answers = await converse(Echo(), [sent[at : at + 1] for at in range(len(sent))])
        expect_answers(answers, [message])


MESSAGES = st.builds(
    Message,
    path=st.sampled_from(["/it", "/other"]),
    method=st.sampled_from(["POST", "GET", "PUT", "DELETE"]),
    framing=st.sampled_from(FRAMINGS),
    body=st.one_of(st.just(SMUGGLED), st.binary(max_size=100), st.just(SMUGGLED * 1000)),
    offer=st.sampled_from(OFFERS),
    connection=st.sampled_from(CONNECTIONS),
    http2_settings=st.booleans(),
    expect=st.booleans(),
)


@given(
    messages=st.lists(MESSAGES, min_size=1, max_size=6),
    cuts=st.lists(st.floats(0, 1), max_size=12),
)
@settings(deadline=None, max_examples=200)
def test_random_segments(messages: list[Message], cuts: list[float]) -> None:
    sent = b"".join(message.encoded() for message in messages) + LAST
    places = sorted({0, len(sent), *(int(cut * len(sent)) for cut in cuts)})
    segments = [sent[begin:end] for begin, end in itertools.pairwise(places)]
    expect_answers(asyncio.run(converse(Echo(), segments)), messages)


@pytest.mark.parametrize("offer", [None, "h2c"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_the_body_of_what_was_answered_early_is_no_request(
    framing: str, offer: str | None
) -> None:
    connection = "Upgrade" if offer else None
    message = Message(
        path="/early", framing=framing, body=SMUGGLED * 2000, offer=offer, connection=connection
    )
    sent = message.encoded()
    app = Echo()
    answers = await converse(app, [sent[:200], sent[200:300], sent[300:], LAST])
    assert [it.said["path"] for it in answers] == ["/early", "/last"]
    assert app.asked == ["/early", "/last"]


HEAD = b"POST /it HTTP/1.1\r\nHost: x\r\n"
UNREADABLE: dict[str, bytes] = {
    "CL.TE": HEAD + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "TE.CL": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nG\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nGG",
    "a length twice": HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nG",
    "a list of lengths": HEAD + b"Content-Length: 1, 1\r\n\r\nG",
    "a signed length": HEAD + b"Content-Length: +1\r\n\r\nG",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\nG",
    "a huge length": HEAD + b"Content-Length: 99999999999999999999\r\n\r\nG",
    "xchunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a space before the colon": HEAD + b"Content-Length : 1\r\n\r\nG",
    "a space before a coding's colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded header": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bare LF in the head": b"POST /it HTTP/1.1\nHost: x\nContent-Length: 1\n\nG",
    "a bare CR in a header": HEAD + b"A: b\rContent-Length: 1\r\n\r\nG",
    "NUL in a header": HEAD + b"A: b\0c\r\nContent-Length: 1\r\n\r\nG",
    "NUL in a name": HEAD + b"A\0: b\r\nContent-Length: 1\r\n\r\nG",
    "a size that is none": HEAD + b"Transfer-Encoding: chunked\r\n\r\nx\r\nG\r\n0\r\n\r\n",
    "a signed size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n+1\r\nG\r\n0\r\n\r\n",
    "a hexadecimal size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\nG\r\n0\r\n\r\n",
    "a chunk ended by LF": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\nG\n0\n\n",
    "a chunk longer than its size": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n1\r\nGG\r\n0\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version of nobody": b"POST /it HTTP/2.0\r\nHost: x\r\nContent-Length: 1\r\n\r\nG",
    "HTTP/0.9": b"GET /it HTTP/0.9\r\n\r\n",
    "a folded length": HEAD + b"Content-Length: 1\r\n 2\r\n\r\nG",
    "gzip, chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked of HTTP/1.0": (
        b"POST /it HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "nonsense": b"nonsense\r\n\r\n",
    "no host": b"GET /it HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /it HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
}


@pytest.mark.parametrize("offer", [b"", b"Upgrade: h2c\r\nConnection: Upgrade\r\n"])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("case", UNREADABLE)
async def test_what_can_be_read_in_two_ways_is_refused(
    case: str, whole: bool, offer: bytes
) -> None:
    sent = UNREADABLE[case].replace(b"Host: x\r\n", b"Host: x\r\n" + offer, 1)
    sent += SMUGGLED + LAST
    app = Echo()
    answers = await converse(app, [sent] if whole else [bytes([it]) for it in sent])
    assert len(answers) == 1
    if answers[0].status == 200:  # the fault is in its body: the application knows it
        assert answers[0].said["fault"] == "malformed_request"
    else:
        assert (answers[0].status, answers[0].said["code"]) == (400, "malformed_request")
    assert not {"/smuggled", "/last"} & set(app.asked)


@pytest.mark.parametrize("target", [b"evil.example:443", b"/it"])
async def test_connect_is_refused(target: bytes) -> None:
    app = Echo()
    sent = b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n" + SMUGGLED
    answers = await converse(app, [sent, LAST])
    assert [(it.status, it.said["code"]) for it in answers] == [(405, "method_not_allowed")]
    assert app.asked == []


@pytest.mark.parametrize(
    "broken", [b"nonsense\r\n\r\n", b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n"]
)
async def test_what_cannot_be_read_costs_no_earlier_request_its_answer(
    broken: bytes,
) -> None:
    """An answer belongs to a request by its place; so each that is owed comes, and no other."""
    app = Echo()
    app.may_answer.clear()
    conversation = Conversation(app)
    await conversation.begin()
    first, second = Message(path="/first"), Message(path="/second")
    await conversation.say([first.encoded(), second.encoded() + broken + SMUGGLED])
    app.may_answer.set()
    answers = await conversation.hear()
    assert [(it.status, it.said["path"]) for it in answers] == [(200, "/first"), (200, "/second")]
    assert app.asked == ["/first", "/second"]


async def test_nothing_is_read_after_the_request_that_closes() -> None:
    app = Echo()
    answers = await converse(app, [LAST + SMUGGLED, SMUGGLED])
    assert [it.said["path"] for it in answers] == ["/last"]
    assert app.asked == ["/last"]


async def test_an_old_client_may_offer_too() -> None:
    sent = (
        b"POST /it HTTP/1.0\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nok"
    )
    for segments in ([sent], [bytes([it]) for it in sent]):
        answers = await converse(Echo(), segments)
        assert [(it.status, it.said["body"]) for it in answers] == [(200, "ok")]


@pytest.mark.parametrize("sent", [b"GET /", b"GET / HTTP/1.1\r\nA: "])
async def test_a_head_without_end_is_refused(sent: bytes) -> None:
    app = Echo()
    answers = await converse(app, [sent, *[b"a" * 1000] * 100])
    assert [(it.status, it.said["code"]) for it in answers] == [(431, "malformed_request")]
    assert app.asked == []


async def test_a_head_that_begins_behind_a_large_body_is_not_too_large() -> None:
    message = Message(body=b"x" * 100_000)
    sent = message.encoded() + LAST
    answers = await converse(Echo(), [sent[:200], sent[200:-10], sent[-10:]])
    expect_answers(answers, [message])


async def test_a_head_that_does_not_come_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "MESSAGE_SECONDS", 0.05)
    app = Echo()
    answers = await converse(app, [b"GET /it HTTP/1.1\r\nHos"])
    assert [(it.status, it.said["code"]) for it in answers] == [(408, "request_timeout")]
    assert app.asked == []


@pytest.mark.parametrize("offer", [None, "h2c"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_does_not_come_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch, framing: str, offer: str | None
) -> None:
    monkeypatch.setattr(protocol, "MESSAGE_SECONDS", 0.05)
    message = Message(framing=framing, offer=offer, connection="Upgrade" if offer else None)
    app = Echo()
    answers = await converse(app, [message.encoded()[:-20]])
    assert [(it.status, it.said["fault"]) for it in answers] == [(200, "request_timeout")]


async def test_a_body_that_nobody_waits_for_is_not_waited_for_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "MESSAGE_SECONDS", 0.05)
    answers = await converse(Echo(), [Message(path="/early").encoded()[:-20]])
    assert [(it.status, it.said["path"]) for it in answers] == [(200, "/early")]
