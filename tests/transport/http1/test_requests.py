"""The bytes of requests as they reach a destination, and requests that are never sent."""

from __future__ import annotations

import pytest

from fastapi_proxy_di.errors import InvalidRequest
from fastapi_proxy_di.transport.protocol import Headers, OutgoingRequest
from tests.support.origins import Connection, ScriptedOrigin
from tests.transport.http1.engine import body_of, engine, exchange_on, get, post
from tests.transport.loops import on_every_loop

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _Recording:
    """A script that records every byte up to an end mark, then responds and closes."""

    def __init__(self, end: bytes, body: int = 0) -> None:
        self.end = end
        self.body = body
        self.data = b""

    async def __call__(self, connection: Connection) -> None:
        while not self.data.endswith(self.end) or len(self.data) < self.body:
            self.data += await connection.reader.read(1 << 20)
        await connection.send(_OK)


@on_every_loop
async def test_head_is_sent_unchanged() -> None:
    """Request line and headers in order; nothing is added or encoded again."""
    recording = _Recording(b"\r\n\r\n")
    request = get(
        b"/a%2Fb//;x?q=%20&q",
        method=b"PROPFIND",
        headers=[(b"x-b", b"2"), (b"x-a", b"\xe9 \t z"), (b"x-b", b"1"), (b"x-empty", b"")],
    )
    async with ScriptedOrigin(recording) as origin, engine(origin) as transport:
        await body_of(await exchange_on(transport, request))

    assert recording.data == (
        b"PROPFIND /a%2Fb//;x?q=%20&q HTTP/1.1\r\nhost: origin\r\nx-b: 2\r\n"
        b"x-a: \xe9 \t z\r\nx-b: 1\r\nx-empty: \r\n\r\n"
    )


@pytest.mark.parametrize("size", [0, 5, 65536, 65537, 1 << 20])
@on_every_loop
async def test_whole_body_follows_its_head(size: int) -> None:
    """Sent in one write with the head or not, the bytes are the same."""
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    recording = _Recording(body[-50:] if size else b"\r\n\r\n", size)
    async with ScriptedOrigin(recording) as origin, engine(origin) as transport:
        await body_of(await exchange_on(transport, post(size), body))

    assert recording.data == (
        b"POST / HTTP/1.1\r\nhost: origin\r\ncontent-length: %d\r\n\r\n" % size + body
    )


@on_every_loop
async def test_body_in_pieces_keeps_its_length() -> None:
    """The first piece is sent with the head, empty pieces send nothing."""
    recording = _Recording(b"hello world")
    async with ScriptedOrigin(recording) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, post(11), b"hel", more=True)
        for piece in (b"lo", b"", b" world"):
            await exchange.write(piece)
        exchange.finish()
        exchange.finish()
        await body_of(exchange)

    assert recording.data.endswith(b"\r\ncontent-length: 11\r\n\r\nhello world")


@pytest.mark.parametrize("first", [b"", b"hel", b"x" * 70000])
@on_every_loop
async def test_chunked_body_has_a_chunk_for_each_piece(first: bytes) -> None:
    """An empty piece is not sent as the last chunk."""
    recording = _Recording(b"0\r\n\r\n")
    async with ScriptedOrigin(recording) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, post(None), first, more=True)
        await exchange.write(b"")
        await exchange.write(b"0123456789abcdef!")
        exchange.finish()
        await body_of(exchange)

    opening = b"%x\r\n%b\r\n" % (len(first), first) if first else b""
    assert recording.data == (
        b"POST / HTTP/1.1\r\nhost: origin\r\ntransfer-encoding: chunked\r\n\r\n"
        + opening
        + b"11\r\n0123456789abcdef!\r\n0\r\n\r\n"
    )


@pytest.mark.parametrize("body", [b"", b"hello"])
@on_every_loop
async def test_complete_chunked_body_is_ended_at_once(body: bytes) -> None:
    """The last chunk is sent with the head."""
    recording = _Recording(b"0\r\n\r\n")
    async with ScriptedOrigin(recording) as origin, engine(origin) as transport:
        await body_of(await exchange_on(transport, post(None), body))

    assert recording.data.endswith(
        b"chunked\r\n\r\n" + (b"5\r\nhello\r\n" if body else b"") + b"0\r\n\r\n"
    )


_EVIL = [b"a\r\nx-b: c", b"a\nb", b"a\rb", b"a\0b", b"a\r\n\r\nGET /b HTTP/1.1\r\n\r\n", b"a\r\n"]


@pytest.mark.parametrize("evil", _EVIL)
@pytest.mark.parametrize("place", ["method", "target", "name", "value"])
@on_every_loop
async def test_line_ends_and_nul_are_never_sent(evil: bytes, place: str) -> None:
    """In no part of a head; the connection that was dialled is closed."""
    headers: Headers = [(b"host", b"origin")]
    if place == "name":
        headers.append((evil, b"x"))
    elif place == "value":
        headers.append((b"x", evil))
    request = OutgoingRequest(
        evil if place == "method" else b"GET",
        evil if place == "target" else b"/",
        headers,
        60.0,
    )
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        await body_of(await exchange_on(transport, get()))
        assert transport.idle == 1
        with pytest.raises(InvalidRequest):
            transport.reuse(request, b"", more=False)
        with pytest.raises(InvalidRequest):
            await transport.start(request, b"", more=False)
        await origin.all_left()

    assert len(origin.requests) == 1


@pytest.mark.parametrize(
    ("method", "target"),
    [
        (b"GET", b"/a b"),
        (b"GET", b"/ HTTP/1.1"),
        (b"GET", b"/a\tHTTP/1.1"),
        (b"GET", b"/a\x0bb"),
        (b"GET", b"/a\x0cb"),
        (b"GET", b""),
        (b"GET /x", b"/"),
        (b"GET\t/x", b"/"),
        (b"", b"/"),
    ],
)
@on_every_loop
async def test_request_line_has_three_words(method: bytes, target: bytes) -> None:
    """RFC 9112 section 3: lenient servers split the line at any whitespace."""
    request = OutgoingRequest(method, target, [(b"host", b"origin")], 60.0)
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        with pytest.raises(InvalidRequest):
            await transport.start(request, b"", more=False)
        await origin.all_left()

    assert origin.requests == []


@pytest.mark.parametrize("body", [b"", b"hell", b"hello!", b"hello\r\nGET /b HTTP/1.1\r\n\r\n"])
@on_every_loop
async def test_whole_body_must_have_its_declared_length(body: bytes) -> None:
    """With another length the destination would see the next request at another byte."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        with pytest.raises(ValueError, match="Content-Length"):
            await transport.start(post(5), body, more=False)
        await origin.all_left()

    assert not any(received.complete for received in origin.requests)


@on_every_loop
async def test_body_without_a_length_is_never_sent() -> None:
    """Without a length in the head its bytes would be taken for the next request."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        with pytest.raises(ValueError, match="Content-Length"):
            await transport.start(get(), b"GET /b HTTP/1.1\r\n\r\n", more=False)
        await origin.all_left()

    assert origin.requests == []


@pytest.mark.parametrize("first", [b"", b"hel", b"hello", b"hello!"])
@on_every_loop
async def test_longer_body_than_declared_is_cut_off(first: bytes) -> None:
    """No byte over the length is sent, and the connection is not used again."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:

        async def overshoot() -> None:
            exchange = await exchange_on(transport, post(5), first, more=True)
            try:
                await exchange.write(b"lo!!!!"[: 6 - len(first)] + b"surplus")
            finally:
                exchange.close()

        with pytest.raises(ValueError, match="Content-Length"):
            await overshoot()
        await origin.all_left()
        assert transport.idle == 0

    assert not any(received.complete for received in origin.requests if len(first) != 5)


@on_every_loop
async def test_shorter_body_than_declared_cannot_be_finished() -> None:
    """The destination would read the next request as a part of the body."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, post(5), b"he", more=True)
        with pytest.raises(ValueError, match="shorter"):
            exchange.finish()
        exchange.close()
        await origin.all_left()

        assert transport.idle == 0
