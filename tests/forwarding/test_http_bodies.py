"""Bodies of any size are forwarded with their framing and bytes."""

import gzip
import hashlib

import pytest

from tests.support.gateways import gateway
from tests.support.http_client import Ending, connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, always, chunk, response_bytes

pytestmark = pytest.mark.e2e


_BLOCK = bytes(range(256)) * 256  # 64 KiB
_BLOCKS = 800  # 50 MiB


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "GET", "DELETE", "OPTIONS"])
async def test_length_of_a_request_is_kept(method: str) -> None:
    """A body with a length arrives with that length, on any method."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await fetch(gate.address, method, "/billing/x", body=b"hello")

    assert origin.request.one(b"content-length") == b"5"
    assert not origin.request.chunked
    assert origin.request.body == b"hello"


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_chunked_request_stays_chunked(method: str) -> None:
    """A body of unknown length is sent in chunks."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url) as gate,
        connect(gate.address) as client,
    ):
        await client.send(
            request(method, "/billing/x", [(b"Transfer-Encoding", b"chunked")])
            + chunk(b"hel")
            + chunk(b"lo")
            + chunk(b"")
        )
        reply = await client.read_response()

    assert reply.status == 200
    assert origin.request.chunked
    assert origin.request.one(b"content-length") is None
    assert origin.request.body == b"hello"
    assert origin.request.complete


async def test_empty_chunked_request_is_complete() -> None:
    """A chunked body without bytes is ended."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url) as gate,
        connect(gate.address) as client,
    ):
        await client.send(
            request("POST", "/billing/x", [(b"Transfer-Encoding", b"chunked")]) + chunk(b"")
        )
        reply = await client.read_response()

    assert reply.status == 200
    assert origin.request.complete
    assert origin.request.body == b""


async def test_empty_post_keeps_its_length() -> None:
    """``Content-Length: 0`` is different from no length."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await fetch(gate.address, "POST", "/billing/x", body=b"")

    assert origin.request.one(b"content-length") == b"0"
    assert not origin.request.chunked


async def test_get_without_body_has_no_framing() -> None:
    """A request without a body has no framing header."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await fetch(gate.address, "GET", "/billing/x")

    assert origin.request.one(b"content-length") is None
    assert not origin.request.chunked


async def test_encoded_bodies_are_not_decoded() -> None:
    """Gzip is forwarded as its bytes, both ways."""
    up, down = gzip.compress(b"up" * 1000), gzip.compress(b"down" * 1000)
    raw = response_bytes(body=down, headers=[(b"Content-Encoding", b"gzip")])
    async with ScriptedOrigin(always(raw)) as origin, gateway(origin.url) as gate:
        reply = await fetch(
            gate.address, "POST", "/billing/x", [(b"Content-Encoding", b"gzip")], up
        )

    assert origin.request.body == up
    assert origin.request.one(b"content-encoding") == b"gzip"
    assert origin.request.one(b"accept-encoding") is None
    assert reply.body == down
    assert reply.one(b"content-encoding") == b"gzip"
    assert reply.one(b"content-length") == str(len(down)).encode()


async def test_chunked_response_stays_chunked() -> None:
    """A response of unknown length is sent in chunks, and is ended."""
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw += chunk(b"hel") + b"2;ext=1\r\nlo\r\n" + b"0\r\nX-Trailer: 1\r\n\r\n"
    async with ScriptedOrigin(always(raw)) as origin, gateway(origin.url) as gate:
        first = await fetch(gate.address, target="/billing/x")
        second = await fetch(gate.address, target="/billing/x")

    assert (first.body, first.ending) == (b"hello", Ending.LAST_CHUNK)
    assert first.one(b"content-length") is None
    assert second.body == b"hello"
    assert origin.connections == 1


async def test_transfer_coding_is_case_insensitive() -> None:
    """RFC 9112 section 7."""
    raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n" + chunk(b"hello") + chunk(b"")
    async with ScriptedOrigin(always(raw)) as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, target="/billing/x")

    assert (reply.body, reply.ending) == (b"hello", Ending.LAST_CHUNK)


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_close_delimited_response_ends_cleanly(version: bytes) -> None:
    """The close ends it; the client gets a framed response."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(version + b" 200 OK\r\n\r\nhello")

    async with ScriptedOrigin(script) as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, target="/billing/x")
        again = await fetch(gate.address, target="/billing/x")

    assert (reply.body, reply.ending) == (b"hello", Ending.LAST_CHUNK)
    assert again.body == b"hello"
    assert origin.connections == 2


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 1_000_003])
async def test_sizes_around_the_buffer_arrive_whole(size: int) -> None:
    """Sizes near the limits of our buffers."""
    body = (_BLOCK * 16)[:size]
    async with (
        ScriptedOrigin(always(response_bytes(body=body))) as origin,
        gateway(origin.url) as gate,
    ):
        reply = await fetch(gate.address, "POST", "/billing/x", body=body)

    assert origin.request.body == body
    assert (reply.body, reply.ending) == (body, Ending.LENGTH)


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_upload_arrives_whole(chunked: bool) -> None:
    """50 MiB are sent unchanged."""
    expected = hashlib.sha256(_BLOCK * _BLOCKS).hexdigest()
    framing = (
        (b"Transfer-Encoding", b"chunked")
        if chunked
        else (b"Content-Length", b"%d" % (len(_BLOCK) * _BLOCKS))
    )
    piece = chunk(_BLOCK) if chunked else _BLOCK

    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("POST", "/billing/x", [framing]))
        for _ in range(_BLOCKS):
            await client.send(piece)
        if chunked:
            await client.send(chunk(b""))
        reply = await client.read_response()

    assert reply.status == 200
    assert hashlib.sha256(origin.request.body).hexdigest() == expected


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_download_arrives_whole(chunked: bool) -> None:
    """50 MiB are received unchanged."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        if chunked:
            await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        else:
            await connection.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(_BLOCK) * _BLOCKS)
            )
        for _ in range(_BLOCKS):
            await connection.send(chunk(_BLOCK) if chunked else _BLOCK)
        if chunked:
            await connection.send(chunk(b""))

    async with ScriptedOrigin(script) as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, target="/billing/x")

    assert reply.whole
    assert hashlib.sha256(reply.body).digest() == hashlib.sha256(_BLOCK * _BLOCKS).digest()
