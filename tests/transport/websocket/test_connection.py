"""Messages both ways on one upstream WebSocket, and how a slow side stops the other."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
from websockets.exceptions import ConnectionClosed

from fastapi_proxy_di.wire.close import Close
from tests.support.gateways import until
from tests.support.websocket_dial import dial
from tests.support.websocket_frames import frame
from tests.support.websocket_origin import FramePeer, frames_from
from tests.transport.websocket.peers import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    opened,
    receive_all,
    sends,
    until_left,
)


async def test_recv_gives_whole_messages_of_every_kind_in_order() -> None:
    """Text, binary, empty messages, and fragments joined around a ping, which gets its pong."""
    pongs: list[tuple[int, bytes]] = []

    async def then(peer: FramePeer) -> None:
        pongs.append(await peer.read())

    script = sends(
        frame(TEXT, "grüße".encode()),
        frame(BINARY, b"\x00\xff"),
        frame(TEXT),
        frame(BINARY),
        frame(TEXT, b"gr\xc3", fin=False),
        frame(PING, b"hi"),
        frame(CONT, b"\xbc", fin=False),
        frame(CONT, "ße".encode()),
        frame(BINARY, b"a" * 300, fin=False),
        frame(CONT, b"b" * 70_000),
        then=then,
    )
    async with opened(script) as upstream:
        messages = await receive_all(upstream)

    assert messages == ["grüße", b"\x00\xff", "", b"", "grüße", b"a" * 300 + b"b" * 70_000]
    assert [type(message) for message in messages] == [str, bytes, str, bytes, str, bytes]
    assert pongs == [(PONG, b"hi")]
    assert upstream.received_messages == 6
    assert upstream.received_bytes == 7 + 2 + 7 + 70_300


async def test_recv_gives_messages_sent_with_the_101() -> None:
    """A message in the packet of the 101, a part of another one, and the rest later."""
    whole = frame(TEXT, b"first") + frame(TEXT, b"second")
    async with opened(sends(whole[9:]), whole[:9]) as upstream:
        assert await upstream.recv() == "first"
        assert await upstream.recv() == "second"


async def test_recv_survives_every_split_of_the_bytes() -> None:
    """Frames arrive byte by byte."""
    stream = frame(TEXT, b"x" * 130) + frame(PING) + frame(BINARY, b"yz") + frame(CLOSE)

    async def script(peer: FramePeer) -> None:
        for index in range(len(stream)):
            peer.writer.write(stream[index : index + 1])
            await asyncio.sleep(0)
        await until_left(peer)

    async with opened(script) as upstream:
        assert await receive_all(upstream) == ["x" * 130, b"yz"]
    assert upstream.close_received


async def test_send_writes_masked_frames_of_every_size() -> None:
    """Each of the three length forms, text and binary, arrives as it was sent."""
    sent: list[str | bytes] = ["", b"", "ü", b"\x00" * 125, "a" * 126, b"b" * 65_535, "c" * 65_536]
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.extend([await peer.read() for _ in sent])

    async with opened(script) as upstream:
        for message in sent:
            await upstream.send(message)
        assert await receive_all(upstream) == []

    assert seen == [
        (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
        for message in sent
    ]
    assert upstream.sent_messages == len(sent)
    assert upstream.sent_bytes == 2 + 125 + 126 + 65_535 + 65_536


async def test_message_at_the_limit_is_accepted() -> None:
    """``max_message_bytes`` is the longest allowed message."""
    async with opened(sends(frame(TEXT, b"x" * 1024)), max_message_bytes=1024) as upstream:
        assert await upstream.recv() == "x" * 1024


async def test_slow_receiver_stops_the_upstream() -> None:
    """Without a receiver a bounded part of an endless stream is read, later the rest."""
    count = 4000
    sent = 0

    async def script(peer: FramePeer) -> None:
        nonlocal sent
        for number in range(count):
            peer.send(BINARY, number.to_bytes(4, "big") * 2000)
            await peer.writer.drain()
            sent = number + 1
        peer.send(CLOSE)
        await until_left(peer)

    async with opened(script) as upstream:
        stalled, before = 0, -1
        while stalled < 20:
            await asyncio.sleep(0.005)
            stalled = stalled + 1 if sent == before else 0
            before = sent
        assert sent < count
        assert upstream.received_bytes < 64 * 1024 * 3

        messages = await receive_all(upstream)

    assert messages == [number.to_bytes(4, "big") * 2000 for number in range(count)]


async def test_flood_of_empty_messages_stops_the_upstream() -> None:
    """Messages without payload count too, or they would fill the memory."""
    count = 150_000
    async with opened(sends(frame(BINARY) * count, frame(CLOSE))) as upstream:
        seen = -1
        while upstream.received_messages != seen:
            seen = upstream.received_messages
            await asyncio.sleep(0.02)
        assert upstream.received_messages < 100_000

        assert len(await receive_all(upstream)) == count


async def test_start_close_resumes_reading() -> None:
    """If reading stayed paused, the upstream's end would not be seen."""
    closed = asyncio.Event()

    async def script(peer: FramePeer) -> None:
        peer.writer.write(frame(BINARY, b"x" * 8000) * 1000)
        assert (await peer.read())[0] == CLOSE
        await peer.writer.drain()
        closed.set()

    async with opened(script) as upstream:
        await until(lambda: upstream.received_bytes > 64 * 1024)
        await asyncio.wait_for(upstream.close(Close(1001)), 10)
    assert closed.is_set()


async def test_slow_upstream_stops_the_sender_and_gets_the_latest_pong_only() -> None:
    """``send`` waits for a peer that does not read, and only one pong is kept."""
    read = asyncio.Event()
    seen: list[tuple[int, int]] = []

    async def script(peer: FramePeer) -> None:
        await read.wait()
        while not seen or seen[-1][0] != PONG:
            opcode, payload = await peer.read()
            seen.append((opcode, len(payload)))
        peer.send(CLOSE)

    async with frames_from(script) as origin:
        upstream, _ = await dial(*origin.address)
        sending = asyncio.create_task(upstream.send(b"\x00" * 8_000_000))
        done, _ = await asyncio.wait({sending}, timeout=0.05)
        assert not done
        for size in (1, 2, 3):
            upstream.get_buffer(-1)[: size + 2] = frame(PING, b"p" * size)
            upstream.buffer_updated(size + 2)
        read.set()
        await asyncio.wait_for(sending, 20)
        assert await upstream.recv() is None
        await upstream.wait_closed()

    assert seen == [(BINARY, 8_000_000), (PONG, 3)]


async def test_cancelled_sender_and_receiver_lose_nothing() -> None:
    """The WebSocket can be used after a cancelled wait."""
    go = asyncio.Event()

    async def script(peer: FramePeer) -> None:
        await go.wait()
        await peer.reader.readexactly(8_000_014)
        peer.send(TEXT, b"late")
        await until_left(peer)

    async with opened(script) as upstream:
        receiving = asyncio.create_task(upstream.recv())
        sending = asyncio.create_task(upstream.send(b"x" * 8_000_000))
        await asyncio.wait({receiving, sending}, timeout=0.02)
        receiving.cancel()
        sending.cancel()
        await asyncio.wait({receiving, sending})
        go.set()

        assert await upstream.recv() == "late"


@contextlib.asynccontextmanager
async def _real_echo(**options: Any) -> AsyncIterator[int]:
    """Run the ``websockets`` server, which echoes messages."""

    async def echo(connection: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None, **options) as server:
        port: int = next(iter(server.sockets)).getsockname()[1]
        yield port


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_real_server_echoes_messages(compression: str | None) -> None:
    """Seeded messages of all kinds and sizes, compressed or not."""
    draw = random.Random(6455)
    messages: list[str | bytes] = [b"x" * 2**20, "y" * 2**20, "", b""]
    for _ in range(200):
        size = draw.choice([1, 10, 125, 126, 500, 70_000])
        messages.append(draw.randbytes(size) if draw.random() < 0.5 else "z" * size)

    async with _real_echo(compression=compression) as port:
        upstream, accepted = await dial("127.0.0.1", port, compression=compression is not None)
        for message in messages:
            await upstream.send(message)
            assert await upstream.recv() == message
        await upstream.close(Close(1000))

    assert (bool(accepted.extensions)) is (compression is not None)


async def test_real_server_echoes_a_message_above_16_mib() -> None:
    """Without a limit any size is accepted."""
    message = bytes(20 * 2**20)
    async with _real_echo(compression=None) as port:
        upstream, _ = await dial("127.0.0.1", port)
        sending = asyncio.create_task(upstream.send(message))
        assert await upstream.recv() == message
        await sending
        await upstream.close(Close(1000))


async def test_real_server_echoes_small_messages_in_order() -> None:
    """Many small messages keep their order and their number."""
    expected = [str(number) for number in range(5_000)]
    async with _real_echo(compression=None) as port:
        upstream, _ = await dial("127.0.0.1", port)

        async def send() -> None:
            for message in expected:
                await upstream.send(message)

        sending = asyncio.create_task(send())
        assert [await upstream.recv() for _ in expected] == expected
        await sending
        await upstream.close(Close(1000))
