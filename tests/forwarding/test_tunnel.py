"""Tunnels through a real server: messages in both directions, and backpressure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fastapi_proxy_di.forwarding.tunnel import TunnelEnd, WebSocketEnd
from tests.forwarding.tunnels import (
    BINARY,
    CLOSE,
    SERVERS,
    TEXT,
    connect,
    echoing,
    ended,
    raw_client,
    scripted,
)
from tests.support.gateways import until
from tests.support.websocket_origin import FramePeer

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("ws", SERVERS)
async def test_tunnel_carries_messages_of_every_kind(ws: str) -> None:
    """Text, binary, empty and fragmented messages come back whole, and are counted."""
    async with echoing(ws=ws) as gateway, connect(gateway) as client:
        for message in ("grüße", b"\x00\xff", "", b"", "x" * 100_000, b"y" * 70_000):
            await client.send(message)
            assert await client.recv() == message
        await client.send(["frag", "men", "ted"])
        assert await client.recv() == "fragmented"
        await client.close(1000, "done")
        end = await gateway.end()

    total = 7 + 2 + 100_000 + 70_000 + 10
    assert end == TunnelEnd(WebSocketEnd.CLIENT_CLOSED, 1000, "done", None, 7, total, 7, total)
    assert gateway.tunnels[0].end == end


async def test_tunnel_carries_a_message_above_16_mib() -> None:
    """If the server's own limit is higher, the tunnel adds none."""
    message = bytes(20 * 2**20)
    async with echoing(size=2**25) as gateway, connect(gateway, ping_interval=None) as client:
        await client.send(message)
        assert await asyncio.wait_for(client.recv(), 30) == message


async def test_tunnel_carries_small_messages_in_order() -> None:
    """Number and order of small messages hold in both directions."""
    expected = [str(number) for number in range(5_000)]
    async with echoing() as gateway, connect(gateway) as client:

        async def send() -> None:
            for message in expected:
                await client.send(message)

        sending = asyncio.create_task(send())
        assert [await client.recv() for _ in expected] == expected
        await sending


@pytest.mark.parametrize("message", ["x" * 1025, "ü" * 513, b"x" * 1025])
async def test_client_message_over_the_limit_closes_both_with_1009(message: str | bytes) -> None:
    """``max_message_bytes`` counts bytes, and also limits the client."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        while not seen or seen[-1][0] != CLOSE:
            seen.append(await peer.read())

    async with (
        scripted(script, max_message_bytes=1024) as gateway,
        connect(gateway) as client,
    ):
        await client.send("ü" * 512)
        await client.send(message)
        assert await ended(client) == (1009, "message too big")
        end = await gateway.end()

    assert seen == [(TEXT, "ü".encode() * 512), (CLOSE, b"\x03\xf1message too big")]
    assert end.reason is WebSocketEnd.MESSAGE_TOO_BIG


async def test_slow_client_stops_the_upstream() -> None:
    """A client that does not read stops an endless upstream after a bounded amount."""
    sent = 0

    async def script(peer: FramePeer) -> None:
        nonlocal sent
        while True:
            peer.send(BINARY, b"x" * 10_000)
            await peer.writer.drain()
            sent += 10_000

    async with scripted(script) as gateway, raw_client(gateway) as raw:
        await _stalled(lambda: sent)
        before = sent
        assert before < 50_000_000
        taken = 0
        while taken < before:
            taken += len(await asyncio.get_running_loop().sock_recv(raw, 2**16))
        await until(lambda: sent > before)


async def test_slow_upstream_stops_the_client() -> None:
    """An upstream that does not read stops an endless client, and then gets it all."""
    go = asyncio.Event()
    total = 0

    async def script(peer: FramePeer) -> None:
        nonlocal total
        await go.wait()
        while (received := await peer.read())[0] == BINARY:
            total += len(received[1])

    async with scripted(script) as gateway, connect(gateway) as client:
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(3000):
                await client.send(b"x" * 20_000)
                sent += 20_000

        sending = asyncio.create_task(send())
        await _stalled(lambda: sent)
        assert sent < 60_000_000
        go.set()
        await asyncio.wait_for(sending, 20)
        await client.close()
        await gateway.end(10)

    assert total == 60_000_000


async def _stalled(progress: Callable[[], int]) -> None:
    """Wait until a counter that has begun to grow stops."""
    await until(lambda: progress() > 0)
    still, before = 0, -1
    while still < 20:
        await asyncio.sleep(0.01)
        still = still + 1 if progress() == before else 0
        before = progress()
