"""Pings of one upstream WebSocket: when they are sent, and what counts as life."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi_proxy_di.errors import UpstreamTimeout
from fastapi_proxy_di.transport.websocket.connection import UpstreamWebSocket
from tests.support.gateways import until
from tests.support.virtual_time import run_virtually
from tests.support.websocket_frames import frame
from tests.support.websocket_origin import FramePeer
from tests.transport.websocket.peers import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    opened,
    receive_all,
    until_left,
)


async def test_silent_upstream_is_pinged_and_ended() -> None:
    """If no byte arrives after a ping, the WebSocket ends with an error of its own."""
    async with opened(until_left, ping_interval=0.02, ping_timeout=0.02) as upstream:
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
            assert (await peer.read())[0] == PING
            pings += 1
            peer.send(PONG if pings % 2 else TEXT)
        peer.send(CLOSE, b"\x03\xe8")

    async with opened(script, ping_interval=0.02, ping_timeout=60.0) as upstream:
        assert await receive_all(upstream) == ["", ""]

    assert upstream.close_code == 1000


async def test_pings_without_a_timeout_go_on() -> None:
    """``ping_timeout=None`` sends pings and never ends the WebSocket."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.extend([await peer.read(), await peer.read(), await peer.read()])
        peer.send(CLOSE, b"\x03\xe8")

    async with opened(script, ping_interval=0.02, ping_timeout=None) as upstream:
        assert await receive_all(upstream) == []

    assert seen == [(PING, b"")] * 3
    assert upstream.close_code == 1000


class _Written(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Do nothing; the test calls the protocol."""

    def resume_reading(self) -> None:
        """Do nothing, because reading never stops."""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        """Do nothing, because there is no connection."""


def test_busy_upstream_is_not_pinged() -> None:
    """The timer moves with received bytes; the first silence of a whole interval is pinged."""

    async def busy() -> tuple[int, int]:
        transport = _Written()
        upstream = UpstreamWebSocket(transport, ping_interval=1.0, ping_timeout=1.0)
        message = frame(TEXT, b"tick")
        for _ in range(20):
            await asyncio.sleep(0.9)
            upstream.get_buffer(-1)[: len(message)] = message
            upstream.buffer_updated(len(message))
            assert await upstream.recv() == "tick"
        while_busy = len(transport.written)
        await asyncio.sleep(1.1)
        while_silent = len(transport.written)
        upstream.connection_lost(None)
        return while_busy, while_silent

    assert run_virtually(busy()) == (0, 1)


async def test_paused_reading_sends_no_pings() -> None:
    """While reading is paused no pong could arrive, so no ping is sent."""

    async def script(peer: FramePeer) -> None:
        peer.writer.write(frame(BINARY, b"x" * 100_000) * 50 + frame(CLOSE, b"\x03\xe8"))
        assert (await peer.read())[0] == CLOSE

    async with opened(script, ping_interval=60.0, ping_timeout=0.01) as upstream:
        await until(lambda: upstream._read_paused)
        for _ in range(2):
            upstream._heard_at -= 100
            assert upstream._timer is not None
            upstream._timer.cancel()
            upstream._check_alive()
        messages = await receive_all(upstream)

    assert [len(message) for message in messages] == [100_000] * 50
    assert upstream.close_code == 1000
