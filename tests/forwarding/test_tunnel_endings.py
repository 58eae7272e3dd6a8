"""Ends of tunnels through a real server: each side closes, breaks off or fails."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import pytest

from fastapi_proxy_di.errors import UpstreamDisconnected
from fastapi_proxy_di.forwarding.tunnel import WebSocketEnd
from tests.forwarding.tunnels import (
    BINARY,
    CLOSE,
    SERVERS,
    TEXT,
    connect,
    copying_tasks,
    ended,
    raw_client,
    scripted,
    tunnel_server,
    until_left,
)
from tests.support.gateways import until
from tests.support.websocket_frames import frame
from tests.support.websocket_origin import FramePeer, frames_from

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("ws", SERVERS)
@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
async def test_client_close_reaches_the_upstream(ws: str, code: int) -> None:
    """The upstream gets the client's code and reason, after its last message."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.extend([await peer.read(), await peer.read()])

    async with scripted(script, ws=ws) as gateway, connect(gateway) as client:
        await client.send("last")
        await client.close(code, "bye")
        end = await gateway.end()

    assert seen == [(TEXT, b"last"), (CLOSE, code.to_bytes(2, "big") + b"bye")]
    assert (end.reason, end.code, end.close_reason) == (WebSocketEnd.CLIENT_CLOSED, code, "bye")


@pytest.mark.parametrize("ws", SERVERS)
@pytest.mark.parametrize("how", ["reset", "end"])
async def test_lost_client_breaks_off_the_upstream(ws: str, how: str) -> None:
    """Within a second the upstream's connection breaks, without a close frame."""
    left = asyncio.Event()
    rest = b""

    async def script(peer: FramePeer) -> None:
        nonlocal rest
        with contextlib.suppress(ConnectionError):
            rest = await peer.reader.read()
        left.set()

    async with scripted(script, ws=ws) as gateway, raw_client(gateway) as raw:
        if how == "reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
        else:
            raw.shutdown(socket.SHUT_WR)
        end = await gateway.end(1.0)
        await asyncio.wait_for(left.wait(), 10)

    assert rest == b""
    assert (end.reason, end.code) == (WebSocketEnd.CLIENT_VANISHED, 1006)


@pytest.mark.parametrize("ws", SERVERS)
@pytest.mark.parametrize(
    ("payload", "code", "reason", "noted"),
    [
        (b"\x03\xe8bye", 1000, "bye", 1000),
        (b"\x03\xe9", 1001, "", 1001),
        (b"\x0b\xb8", 3000, "", 3000),
        (b"\x13\x87x", 4999, "x", 4999),
        (b"", 1000, "", 1005),
    ],
)
async def test_upstream_close_reaches_the_client(
    ws: str, payload: bytes, code: int, reason: str, noted: int
) -> None:
    """The client gets the upstream's code and reason after its last message."""

    async def script(peer: FramePeer) -> None:
        peer.writer.write(frame(TEXT, b"last") + frame(CLOSE, payload))
        assert await peer.read() == (CLOSE, payload)

    async with scripted(script, ws=ws) as gateway, connect(gateway) as client:
        assert await client.recv() == "last"
        assert await ended(client) == (code, reason)
        end = await gateway.end()

    assert (end.reason, end.code) == (WebSocketEnd.UPSTREAM_CLOSED, noted)
    assert end.error is None


@pytest.mark.parametrize("how", ["reset", "end"])
async def test_lost_upstream_closes_the_client_with_1011(how: str) -> None:
    """1011 and why; within a second."""

    async def script(peer: FramePeer) -> None:
        await peer.read()
        if how == "reset":
            peer.reset()

    async with scripted(script) as gateway, connect(gateway) as client:
        await client.send("go")
        assert await asyncio.wait_for(ended(client), 10) == (1011, "upstream disconnected")
        end = await gateway.end(1.0)

    assert (end.reason, end.code) == (WebSocketEnd.UPSTREAM_VANISHED, 1006)
    assert isinstance(end.error, UpstreamDisconnected)


@pytest.mark.parametrize(
    ("frames", "code", "reason"),
    [
        (frame(TEXT, b"\xff"), 1007, WebSocketEnd.INVALID_DATA),
        (frame(BINARY, b"x" * 1025), 1009, WebSocketEnd.MESSAGE_TOO_BIG),
        (b"\xf1\x00", 1011, WebSocketEnd.UPSTREAM_PROTOCOL_ERROR),
    ],
)
async def test_fault_of_the_upstream_reaches_the_client(
    frames: bytes, code: int, reason: WebSocketEnd
) -> None:
    """Invalid data has its own close code; a broken protocol is a bad gateway."""

    async def script(peer: FramePeer) -> None:
        peer.writer.write(frames)
        await until_left(peer)

    async with (
        scripted(script, max_message_bytes=1024) as gateway,
        connect(gateway) as client,
    ):
        assert (await ended(client))[0] == code
        end = await gateway.end()

    assert end.reason is reason
    assert end.error is not None


async def test_silent_upstream_ends_the_tunnel() -> None:
    """A dead peer is found by its missing pong."""
    async with (
        scripted(until_left, ping_interval=0.02, ping_timeout=0.02) as gateway,
        connect(gateway) as client,
    ):
        assert await ended(client) == (1011, "upstream ping timeout")
        end = await gateway.end()

    assert end.reason is WebSocketEnd.UPSTREAM_PING_TIMEOUT


async def test_close_ends_a_running_tunnel_on_both_sides() -> None:
    """A drain closes remaining tunnels after its time."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.append(await peer.read())

    async with scripted(script) as gateway, connect(gateway) as client:
        await until(lambda: len(gateway.tunnels) == 1)
        gateway.tunnels[0].close(1012, "draining")
        assert await ended(client) == (1012, "draining")
        end = await gateway.end()

    assert seen == [(CLOSE, b"\x03\xf4draining")]
    assert (end.reason, end.code) == (WebSocketEnd.DRAINED, 1012)


async def test_cancellation_closes_both_sides_with_1012_and_is_raised() -> None:
    """The task ends cancelled, and nothing is left."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.append(await peer.read())

    async with scripted(script) as gateway, connect(gateway) as client:
        await until(lambda: len(gateway.tunnels) == 1)
        gateway.tasks[0].cancel()
        assert await ended(client) == (1012, "")
        raised = await asyncio.wait_for(gateway.ends.get(), 10)

    assert isinstance(raised, asyncio.CancelledError)
    assert seen == [(CLOSE, b"\x03\xf4")]
    end = gateway.tunnels[0].end
    assert end is not None
    assert end.reason is WebSocketEnd.SHUTDOWN
    assert not copying_tasks()


@pytest.mark.parametrize("ws", SERVERS)
async def test_server_shutdown_closes_both_sides_with_1012(ws: str) -> None:
    """When uvicorn stops, the upstream is closed as well."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.append(await peer.read())

    async with frames_from(script) as origin:
        async with tunnel_server(origin.address, ws=ws) as gateway:
            client = await connect(gateway)
            await until(lambda: len(gateway.tunnels) == 1)
        assert await ended(client) == (1012, "")
        end = await gateway.end()

    assert seen == [(CLOSE, b"\x03\xf4")]
    assert end.reason is WebSocketEnd.SHUTDOWN
