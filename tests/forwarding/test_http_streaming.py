"""Streaming: bodies are forwarded at once, and memory stays bounded."""

import asyncio
from collections.abc import Callable

import pytest

from tests.support.gateways import gateway, until
from tests.support.http_client import connect, request
from tests.support.origins import Connection, ScriptedOrigin, chunk, response_bytes

pytestmark = pytest.mark.e2e


_SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


@pytest.mark.parametrize("middlewares", [0, 1, 2])
async def test_event_arrives_before_the_next_is_sent(middlewares: int) -> None:
    """The destination sends the next event only after the client has seen the last one."""
    seen = asyncio.Semaphore(0)

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(_SSE_HEAD)
        for number in range(3):
            await connection.send(chunk(b"data: %d\n\n" % number))
            await seen.acquire()
        await connection.send(chunk(b""))

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, middlewares=middlewares) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request(target="/billing/events"))
        reply = await client.read_head()
        events = []
        for _ in range(3):
            events.append(await client.read_chunk())
            seen.release()
        last = await client.read_chunk()

    assert reply.one(b"content-type") == b"text/event-stream"
    assert events == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]
    assert last == b""


@pytest.mark.parametrize(
    "framing", [b"Transfer-Encoding: chunked", b"Content-Length: 5", b"X-Close-Delimited: 1"]
)
async def test_head_arrives_before_the_body(framing: bytes) -> None:
    """The head is forwarded at once, with any framing."""
    seen = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        await seen.wait()
        if framing.startswith(b"Transfer"):
            await connection.send(chunk(b"hello") + chunk(b""))
        else:
            await connection.send(b"hello")

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request(target="/billing/x"))
        reply = await client.read_head()
        seen.set()
        await client.read_body(reply)

    assert reply.body == b"hello"
    assert reply.whole


@pytest.mark.parametrize("middlewares", [0, 1])
async def test_upload_arrives_before_its_end(middlewares: int) -> None:
    """A piece of the body reaches the destination while the client holds the rest."""
    pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(connection: Connection) -> None:
        await connection.read_head()
        for _ in range(3):
            pieces.put_nowait(await connection.reader.readexactly(5))
        await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, middlewares=middlewares) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("POST", "/billing/x", [(b"Content-Length", b"15")]))
        for piece in (b"first", b"again", b"third"):
            await client.send(piece)
            assert await asyncio.wait_for(pieces.get(), 10) == piece
        reply = await client.read_response()

    assert reply.status == 200


async def test_slow_reader_slows_the_destination() -> None:
    """Bytes that the client does not read stay at the destination."""
    block, blocks = bytes(1 << 20), 128
    sent = 0

    async def script(connection: Connection) -> None:
        nonlocal sent
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (blocks << 20))
        for _ in range(blocks):
            await connection.send(block)
            sent += 1

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request(target="/billing/x"))
        reply = await client.read_head()
        await _standstill(lambda: sent)
        held_back = sent
        await client.read_body(reply)

    # Four kernel buffers of some MiB each lie between the two.
    assert 0 < held_back < 48
    assert reply.whole
    assert len(reply.body) == blocks << 20


async def test_slow_destination_slows_the_upload() -> None:
    """Bytes that the destination does not read stay at the client."""
    block, blocks = bytes(1 << 20), 128
    read_on = asyncio.Event()
    sent = 0

    async def script(connection: Connection) -> None:
        received = await connection.read_head()
        await read_on.wait()
        await connection.read_body(received)
        await connection.send(response_bytes(body=b"ok"))

    async def upload() -> None:
        nonlocal sent
        await client.send(
            request("POST", "/billing/x", [(b"Content-Length", b"%d" % (blocks << 20))])
        )
        for _ in range(blocks):
            client.writer.write(block)
            await client.writer.drain()
            sent += 1

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url) as gate,
        connect(gate.address) as client,
    ):
        uploading = asyncio.create_task(upload())
        await until(lambda: origin.requests)
        await _standstill(lambda: sent)
        held_back = sent
        read_on.set()
        await uploading
        reply = await client.read_response()

    assert held_back < 48
    assert reply.status == 200
    assert len(origin.request.body) == blocks << 20


async def _standstill(count: Callable[[], int]) -> None:
    """Wait until a counter has stopped, which is the only sign of a transfer that is held back.

    A pause of the machine looks the same: the test then sees less, but does not fail.
    """
    seen = -1
    while count() != seen:
        seen = count()
        await asyncio.sleep(0.2)
