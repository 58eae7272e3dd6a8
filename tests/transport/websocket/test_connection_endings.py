"""How one upstream WebSocket ends: closes, faults, breaks and aborts."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from fastapi_proxy_di.errors import UpstreamDisconnected, UpstreamProtocolError
from fastapi_proxy_di.transport.websocket import connection as module
from fastapi_proxy_di.wire.close import Close
from tests.support.websocket_frames import frame
from tests.support.websocket_origin import FramePeer
from tests.transport.websocket.peers import (
    BINARY,
    CLOSE,
    CONT,
    TEXT,
    opened,
    receive_all,
    sends,
    until_left,
)


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

    script = sends(frame(TEXT, b"last"), frame(CLOSE, payload), frame(TEXT, b"no"), then=then)
    async with opened(script) as upstream:
        assert await receive_all(upstream) == ["last"]
        await upstream.send("dropped")
        await upstream.wait_closed()

    assert (upstream.close_code, upstream.close_reason) == (code, reason)
    assert upstream.close_received
    assert upstream.error is None
    assert echoes == [(CLOSE, payload)]
    assert upstream.sent_messages == 0


@pytest.mark.parametrize(
    ("frames", "code", "payload"),
    [
        ([frame(TEXT, b"\xff")], 1007, b"invalid UTF-8"),
        ([frame(TEXT, b"\xc3", fin=False), frame(CONT, b"\x28")], 1007, b"invalid UTF-8"),
        ([frame(CLOSE, b"\x03\xe8\xff")], 1007, None),
        ([frame(BINARY, b"x" * 1025)], 1009, None),
        ([frame(BINARY, b"x" * 1000, fin=False), frame(CONT, b"x" * 25)], 1009, None),
        ([frame(CONT, b"x")], 1002, None),
        ([frame(CLOSE, b"\x03\xed")], 1002, None),
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

    script = sends(frame(TEXT, b"good"), *frames, frame(TEXT, b"late"), then=then)
    async with opened(script, max_message_bytes=1024) as upstream:
        assert await receive_all(upstream) == ["good"]
        await upstream.wait_closed()

    assert upstream.close_code == code
    assert not upstream.close_received
    assert isinstance(upstream.error, UpstreamProtocolError)
    assert closes[0][0] == CLOSE
    assert closes[0][1][:2] == code.to_bytes(2, "big")
    assert payload is None or closes[0][1][2:] == payload


@pytest.mark.parametrize("how", ["reset", "end"])
async def test_upstream_that_breaks_off_ends_with_1006(how: str) -> None:
    """A reset, or an EOF without a close frame, is not a clean end."""

    async def then(peer: FramePeer) -> None:
        await peer.read()
        if how == "reset":
            peer.reset()

    async with opened(sends(frame(TEXT, b"one"), then=then)) as upstream:
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
        peer.send(TEXT, b"too late")
        peer.send(CLOSE, seen[1][1])

    async with opened(script) as upstream:
        await upstream.send("last")
        await asyncio.wait_for(upstream.close(close), 10)

    assert seen == [(TEXT, b"last"), (CLOSE, payload)]
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
        await until_left(peer)
        left.set()

    async with opened(script, ping_interval=5.0) as upstream:
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

    async with opened(script) as upstream:
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

    async with opened(script) as upstream:
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

    async with opened(script) as upstream:
        receiving = asyncio.create_task(upstream.recv())
        await asyncio.sleep(0)
        upstream.abort()
        assert await receiving is None
        await upstream.wait_closed()
        await asyncio.wait_for(left.wait(), 10)

    assert rest in ([], [b""])
    assert upstream.close_code == 1006
    assert upstream.error is None
