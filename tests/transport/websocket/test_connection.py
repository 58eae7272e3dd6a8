"""One upstream WebSocket, against peers that speak frame by frame and against the library.

The file is long because each frame that a peer may send has a test with the same peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import websockets
from websockets.exceptions import ConnectionClosed

from fastapi_proxy_di.errors import UpstreamDisconnected, UpstreamProtocolError, UpstreamTimeout
from fastapi_proxy_di.transport.websocket import connection as module
from fastapi_proxy_di.transport.websocket.connection import UpstreamWebSocket
from fastapi_proxy_di.wire.close import Close
from tests.support.gateways import until
from tests.support.websocket_dial import dial
from tests.support.websocket_frames import frame
from tests.support.websocket_origin import FramePeer, frames_from

_CONT, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
Script = Callable[[FramePeer], Awaitable[None]]


async def _until_left(peer: FramePeer) -> None:
    """Read and drop everything until the client disconnects."""
    while await peer.reader.read(65536):
        pass


def _sends(*frames: bytes, then: Script = _until_left) -> Script:
    """Make a script that sends these bytes and continues with ``then``."""

    async def script(peer: FramePeer) -> None:
        peer.writer.write(b"".join(frames))
        await then(peer)

    return script


@contextlib.asynccontextmanager
async def _opened(
    script: Script, leftover: bytes = b"", **options: Any
) -> AsyncIterator[UpstreamWebSocket]:
    async with frames_from(script, leftover=leftover) as origin:
        upstream, _ = await dial(*origin.address, **options)
        try:
            yield upstream
        finally:
            upstream.abort()
            await upstream.wait_closed()


async def _all(upstream: UpstreamWebSocket) -> list[str | bytes]:
    """Receive until the end."""
    messages = []
    while (message := await upstream.recv()) is not None:
        messages.append(message)
    return messages


async def test_recv_gives_whole_messages_of_every_kind_in_order() -> None:
    """Text, binary, empty messages, and fragments joined around a ping, which gets its pong."""
    pongs: list[tuple[int, bytes]] = []

    async def then(peer: FramePeer) -> None:
        pongs.append(await peer.read())

    script = _sends(
        frame(_TEXT, "grüße".encode()),
        frame(_BINARY, b"\x00\xff"),
        frame(_TEXT),
        frame(_BINARY),
        frame(_TEXT, b"gr\xc3", fin=False),
        frame(_PING, b"hi"),
        frame(_CONT, b"\xbc", fin=False),
        frame(_CONT, "ße".encode()),
        frame(_BINARY, b"a" * 300, fin=False),
        frame(_CONT, b"b" * 70_000),
        then=then,
    )
    async with _opened(script) as upstream:
        messages = await _all(upstream)

    assert messages == ["grüße", b"\x00\xff", "", b"", "grüße", b"a" * 300 + b"b" * 70_000]
    assert [type(message) for message in messages] == [str, bytes, str, bytes, str, bytes]
    assert pongs == [(_PONG, b"hi")]
    assert upstream.received_messages == 6
    assert upstream.received_bytes == 7 + 2 + 7 + 70_300


async def test_recv_gives_messages_sent_with_the_101() -> None:
    """A message in the packet of the 101, a part of another one, and the rest later."""
    whole = frame(_TEXT, b"first") + frame(_TEXT, b"second")
    async with _opened(_sends(whole[9:]), whole[:9]) as upstream:
        assert await upstream.recv() == "first"
        assert await upstream.recv() == "second"


async def test_recv_survives_every_split_of_the_bytes() -> None:
    """Frames arrive byte by byte."""
    stream = frame(_TEXT, b"x" * 130) + frame(_PING) + frame(_BINARY, b"yz") + frame(_CLOSE)

    async def script(peer: FramePeer) -> None:
        for index in range(len(stream)):
            peer.writer.write(stream[index : index + 1])
            await asyncio.sleep(0)
        await _until_left(peer)

    async with _opened(script) as upstream:
        assert await _all(upstream) == ["x" * 130, b"yz"]
    assert upstream.close_received


async def test_send_writes_masked_frames_of_every_size() -> None:
    """Each of the three length forms, text and binary, arrives as it was sent."""
    sent: list[str | bytes] = ["", b"", "ü", b"\x00" * 125, "a" * 126, b"b" * 65_535, "c" * 65_536]
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.extend([await peer.read() for _ in sent])

    async with _opened(script) as upstream:
        for message in sent:
            await upstream.send(message)
        assert await _all(upstream) == []

    assert seen == [
        (_TEXT, message.encode()) if isinstance(message, str) else (_BINARY, message)
        for message in sent
    ]
    assert upstream.sent_messages == len(sent)
    assert upstream.sent_bytes == 2 + 125 + 126 + 65_535 + 65_536


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"\x03\xe8bye", 1000, "bye"),
        (b"\x03\xe9", 1001, ""),
        (b"\x0b\xb8", 3000, ""),
        (b"\x13\x87" + "ü".encode(), 4999, "ü"),
        (b"", 1005, ""),
    ],
)
async def test_close_frame_ends_after_the_messages_before_it(
    payload: bytes, code: int, reason: str
) -> None:
    """Code and reason are set after the last message; the frame is echoed."""
    echoes: list[tuple[int, bytes]] = []

    async def then(peer: FramePeer) -> None:
        echoes.append(await peer.read())

    script = _sends(frame(_TEXT, b"last"), frame(_CLOSE, payload), frame(_TEXT, b"no"), then=then)
    async with _opened(script) as upstream:
        assert await _all(upstream) == ["last"]
        await upstream.send("dropped")
        await upstream.wait_closed()

    assert (upstream.close_code, upstream.close_reason) == (code, reason)
    assert upstream.close_received
    assert upstream.error is None
    assert echoes == [(_CLOSE, payload)]
    assert upstream.sent_messages == 0


@pytest.mark.parametrize(
    ("frames", "code", "payload"),
    [
        ([frame(_TEXT, b"\xff")], 1007, b"invalid UTF-8"),
        ([frame(_TEXT, b"\xc3", fin=False), frame(_CONT, b"\x28")], 1007, b"invalid UTF-8"),
        ([frame(_CLOSE, b"\x03\xe8\xff")], 1007, None),
        ([frame(_BINARY, b"x" * 1025)], 1009, None),
        ([frame(_BINARY, b"x" * 1000, fin=False), frame(_CONT, b"x" * 25)], 1009, None),
        ([frame(_CONT, b"x")], 1002, None),
        ([frame(_CLOSE, b"\x03\xed")], 1002, None),
        ([b"\xc1\x00"], 1002, None),
    ],
)
async def test_fault_of_the_upstream_is_closed_with_its_code(
    frames: list[bytes], code: int, payload: bytes | None
) -> None:
    """Bad UTF-8 is 1007, too long 1009, anything else 1002; earlier messages are given."""
    closes: list[tuple[int, bytes]] = []

    async def then(peer: FramePeer) -> None:
        closes.append(await peer.read())

    script = _sends(frame(_TEXT, b"good"), *frames, frame(_TEXT, b"late"), then=then)
    async with _opened(script, max_message_bytes=1024) as upstream:
        assert await _all(upstream) == ["good"]
        await upstream.wait_closed()

    assert upstream.close_code == code
    assert not upstream.close_received
    assert isinstance(upstream.error, UpstreamProtocolError)
    assert closes[0][0] == _CLOSE
    assert closes[0][1][:2] == code.to_bytes(2, "big")
    assert payload is None or closes[0][1][2:] == payload


async def test_message_at_the_limit_is_accepted() -> None:
    """``max_message_bytes`` is the longest allowed message."""
    async with _opened(_sends(frame(_TEXT, b"x" * 1024)), max_message_bytes=1024) as upstream:
        assert await upstream.recv() == "x" * 1024


@pytest.mark.parametrize("how", ["reset", "end"])
async def test_upstream_that_breaks_off_ends_with_1006(how: str) -> None:
    """A reset, or an EOF without a close frame, is not a clean end."""

    async def then(peer: FramePeer) -> None:
        await peer.read()
        if how == "reset":
            peer.reset()

    async with _opened(_sends(frame(_TEXT, b"one"), then=then)) as upstream:
        assert await upstream.recv() == "one"
        await upstream.send("go")
        assert await upstream.recv() is None
        await upstream.wait_closed()
        await upstream.send("dropped")
        upstream.start_close(Close(1000))
        upstream.abort()

    assert upstream.close_code == 1006
    assert not upstream.close_received
    assert isinstance(upstream.error, UpstreamDisconnected)
    assert upstream.sent_messages == 1


@pytest.mark.parametrize(
    ("close", "payload"),
    [(Close(), b""), (Close(1000), b"\x03\xe8"), (Close(4001, "ü"), b"\x0f\xa1" + "ü".encode())],
)
async def test_close_does_the_closing_handshake(
    close: Close, payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our close frame is sent after earlier messages; the upstream ends the connection."""
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 60.0)
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.extend([await peer.read(), await peer.read()])
        peer.send(_TEXT, b"too late")
        peer.send(_CLOSE, seen[1][1])

    async with _opened(script) as upstream:
        await upstream.send("last")
        await asyncio.wait_for(upstream.close(close), 10)

    assert seen == [(_TEXT, b"last"), (_CLOSE, payload)]
    assert upstream.close_code == (close.code or 1005)
    assert upstream.error is None
    assert await upstream.recv() is None


async def test_close_ends_without_a_close_of_the_upstream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection is aborted after its time."""
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.01)
    left = asyncio.Event()

    async def script(peer: FramePeer) -> None:
        await _until_left(peer)
        left.set()

    async with _opened(script, ping_interval=5.0) as upstream:
        await asyncio.wait_for(upstream.close(Close(1000)), 10)
        await asyncio.wait_for(left.wait(), 10)


async def test_close_waits_for_a_busy_upstream_to_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Data before the close frame is not lost if the peer is only slow."""
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.01)
    read, finished = asyncio.Event(), asyncio.Event()
    total = 0

    async def script(peer: FramePeer) -> None:
        nonlocal total
        await read.wait()
        while data := await peer.reader.read(65536):
            total += len(data)
        finished.set()

    async with _opened(script) as upstream:
        sending = asyncio.create_task(upstream.send(b"x" * 16_000_000))
        await asyncio.sleep(0)
        upstream.start_close(Close(1000))
        closing = asyncio.create_task(upstream.wait_closed())
        done, _ = await asyncio.wait({closing}, timeout=0.1)
        assert not done
        read.set()
        await asyncio.wait_for(closing, 10)
        await sending
        await asyncio.wait_for(finished.wait(), 10)

    # Frame head and mask, and the close frame with its mask and code.
    assert total == 16_000_000 + 14 + 8


async def test_close_gives_up_on_an_upstream_that_never_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The wait for unsent data is bounded too, and a waiting sender is woken."""
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "_CLOSE_FLUSH_SECONDS", 0.05)
    never = asyncio.Event()

    async def script(peer: FramePeer) -> None:
        await never.wait()

    async with _opened(script) as upstream:
        sending = asyncio.create_task(upstream.send(b"x" * 16_000_000))
        await asyncio.sleep(0)
        await asyncio.wait_for(upstream.close(Close(1000)), 10)
        await asyncio.wait_for(sending, 10)


async def test_abort_ends_at_once_without_a_close_frame() -> None:
    """The upstream sees a broken connection; ``recv`` gives the end."""
    rest: list[bytes] = []
    left = asyncio.Event()

    async def script(peer: FramePeer) -> None:
        with contextlib.suppress(ConnectionError):
            rest.append(await peer.reader.read())
        left.set()

    async with _opened(script) as upstream:
        receiving = asyncio.create_task(upstream.recv())
        await asyncio.sleep(0)
        upstream.abort()
        assert await receiving is None
        await upstream.wait_closed()
        await asyncio.wait_for(left.wait(), 10)

    assert rest in ([], [b""])
    assert upstream.close_code == 1006
    assert upstream.error is None


async def test_slow_receiver_stops_the_upstream() -> None:
    """Without a receiver a bounded part of an endless stream is read, later the rest."""
    count = 4000
    sent = 0

    async def script(peer: FramePeer) -> None:
        nonlocal sent
        for number in range(count):
            peer.send(_BINARY, number.to_bytes(4, "big") * 2000)
            await peer.writer.drain()
            sent = number + 1
        peer.send(_CLOSE)
        await _until_left(peer)

    async with _opened(script) as upstream:
        stalled, before = 0, -1
        while stalled < 20:
            await asyncio.sleep(0.005)
            stalled = stalled + 1 if sent == before else 0
            before = sent
        assert sent < count
        assert upstream.received_bytes < 64 * 1024 * 3

        messages = await _all(upstream)

    assert messages == [number.to_bytes(4, "big") * 2000 for number in range(count)]


async def test_flood_of_empty_messages_stops_the_upstream() -> None:
    """Messages without payload count too, or they would fill the memory."""
    count = 150_000
    async with _opened(_sends(frame(_BINARY) * count, frame(_CLOSE))) as upstream:
        seen = -1
        while upstream.received_messages != seen:
            seen = upstream.received_messages
            await asyncio.sleep(0.02)
        assert upstream.received_messages < 100_000

        assert len(await _all(upstream)) == count


async def test_start_close_resumes_reading() -> None:
    """If reading stayed paused, the upstream's end would not be seen."""
    closed = asyncio.Event()

    async def script(peer: FramePeer) -> None:
        peer.writer.write(frame(_BINARY, b"x" * 8000) * 1000)
        assert (await peer.read())[0] == _CLOSE
        await peer.writer.drain()
        closed.set()

    async with _opened(script) as upstream:
        await until(lambda: upstream.received_bytes > 64 * 1024)
        await asyncio.wait_for(upstream.close(Close(1001)), 10)
    assert closed.is_set()


async def test_slow_upstream_stops_the_sender_and_gets_the_latest_pong_only() -> None:
    """``send`` waits for a peer that does not read, and only one pong is kept."""
    read = asyncio.Event()
    seen: list[tuple[int, int]] = []

    async def script(peer: FramePeer) -> None:
        await read.wait()
        while not seen or seen[-1][0] != _PONG:
            opcode, payload = await peer.read()
            seen.append((opcode, len(payload)))
        peer.send(_CLOSE)

    async with frames_from(script) as origin:
        upstream, _ = await dial(*origin.address)
        sending = asyncio.create_task(upstream.send(b"\x00" * 8_000_000))
        done, _ = await asyncio.wait({sending}, timeout=0.05)
        assert not done
        for size in (1, 2, 3):
            upstream.get_buffer(-1)[: size + 2] = frame(_PING, b"p" * size)
            upstream.buffer_updated(size + 2)
        read.set()
        await asyncio.wait_for(sending, 20)
        assert await upstream.recv() is None
        await upstream.wait_closed()

    assert seen == [(_BINARY, 8_000_000), (_PONG, 3)]


async def test_cancelled_sender_and_receiver_lose_nothing() -> None:
    """The WebSocket can be used after a cancelled wait."""
    go = asyncio.Event()

    async def script(peer: FramePeer) -> None:
        await go.wait()
        await peer.reader.readexactly(8_000_014)
        peer.send(_TEXT, b"late")
        await _until_left(peer)

    async with _opened(script) as upstream:
        receiving = asyncio.create_task(upstream.recv())
        sending = asyncio.create_task(upstream.send(b"x" * 8_000_000))
        await asyncio.wait({receiving, sending}, timeout=0.02)
        receiving.cancel()
        sending.cancel()
        await asyncio.wait({receiving, sending})
        go.set()

        assert await upstream.recv() == "late"


async def test_silent_upstream_is_pinged_and_ended() -> None:
    """If no byte arrives after a ping, the WebSocket ends with an error of its own."""
    async with _opened(_until_left, ping_interval=0.02, ping_timeout=0.02) as upstream:
        assert await asyncio.wait_for(upstream.recv(), 10) is None

    assert upstream.close_code == 1006
    assert upstream.close_reason == "upstream ping timeout"
    assert isinstance(upstream.error, UpstreamTimeout)


async def test_any_byte_counts_as_a_pong() -> None:
    """An upstream that sends anything is pinged again and again, and not ended."""
    pings = 0

    async def script(peer: FramePeer) -> None:
        nonlocal pings
        while pings < 4:
            assert (await peer.read())[0] == _PING
            pings += 1
            peer.send(_PONG if pings % 2 else _TEXT)
        peer.send(_CLOSE, b"\x03\xe8")

    async with _opened(script, ping_interval=0.02, ping_timeout=60.0) as upstream:
        assert await _all(upstream) == ["", ""]

    assert upstream.close_code == 1000


async def test_pings_without_a_timeout_go_on() -> None:
    """``ping_timeout=None`` sends pings and never ends the WebSocket."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.extend([await peer.read(), await peer.read(), await peer.read()])
        peer.send(_CLOSE, b"\x03\xe8")

    async with _opened(script, ping_interval=0.02, ping_timeout=None) as upstream:
        assert await _all(upstream) == []

    assert seen == [(_PING, b"")] * 3
    assert upstream.close_code == 1000


async def test_busy_upstream_is_not_pinged() -> None:
    """The timer moves with received bytes, without a new timer for each message."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + 1.5
        while loop.time() < end:
            peer.send(_TEXT, b"tick")
            await asyncio.sleep(0.01)
        peer.send(_CLOSE)
        seen.append(await peer.read())

    async with _opened(script, ping_interval=1.0, ping_timeout=1.0) as upstream:
        assert set(await _all(upstream)) == {"tick"}
        await upstream.wait_closed()

    assert seen == [(_CLOSE, b"")]


async def test_paused_reading_sends_no_pings() -> None:
    """While reading is paused no pong could arrive, so no ping is sent."""

    async def script(peer: FramePeer) -> None:
        peer.writer.write(frame(_BINARY, b"x" * 100_000) * 50 + frame(_CLOSE, b"\x03\xe8"))
        assert (await peer.read())[0] == _CLOSE

    async with _opened(script, ping_interval=60.0, ping_timeout=0.01) as upstream:
        await until(lambda: upstream._read_paused)
        for _ in range(2):
            upstream._heard_at -= 100
            assert upstream._timer is not None
            upstream._timer.cancel()
            upstream._check_alive()
        messages = await _all(upstream)

    assert [len(message) for message in messages] == [100_000] * 50
    assert upstream.close_code == 1000


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
