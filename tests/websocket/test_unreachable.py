"""Handshakes that no upstream accepts are retried or refused, never accepted."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from fastapi import Depends, HTTPException
from starlette.requests import HTTPConnection

from tests.support.gateways import until
from tests.support.http_client import RawResponse, connect
from tests.support.origins import Connection, ScriptedOrigin, response_bytes
from tests.support.servers import blackhole, dead_port
from tests.support.websocket_client import open_websocket, shake_hands
from tests.websocket.gateways import every_server, no_tunnel_left, tunnels
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


def _dead() -> str:
    return f"http://127.0.0.1:{dead_port()}"


async def _refusal(*destinations: str, server: str | None = None, **options: Any) -> RawResponse:
    """Send a handshake and give the refusal; nothing may be left of it."""
    async with tunnels(*destinations, server=server, **options) as gateway:
        async with connect(gateway.address) as client:
            response = await shake_hands(client, "/billing/live")
        await no_tunnel_left(gateway)
    return response


@every_server
async def test_dead_destination_is_skipped(server: str) -> None:
    """A tunnel opens as long as one destination is alive."""
    async with (
        echo_server(EchoApp()) as upstream,
        tunnels(_dead(), upstream.url, server=server, policy="first") as gateway,
        open_websocket(gateway.address) as client,
    ):
        await client.send("hello")
        assert await client.recv() == "hello"


@every_server
async def test_all_dead_is_502(server: str) -> None:
    """The body names no address."""
    refusal = await _refusal(_dead(), _dead(), server=server)

    assert refusal.status == 502
    assert refusal.one(b"content-type") == b"application/problem+json"
    assert b"127.0.0.1" not in refusal.body


@every_server
async def test_silent_upstream_is_504(server: str) -> None:
    """``open_timeout`` limits the whole handshake."""
    async with ScriptedOrigin(Connection.peer_left) as origin:
        refusal = await _refusal(origin.url, server=server, websocket={"open_timeout": 0.1})
        await origin.all_left()

    assert refusal.status == 504


async def test_connect_without_a_response_is_504() -> None:
    """``open_timeout`` also limits a dial without a response."""
    with blackhole() as port:
        refusal = await _refusal(f"http://127.0.0.1:{port}", websocket={"open_timeout": 0.1})

    assert refusal.status == 504


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 101 Sw", b"SSH-2.0-x\r\n"])
async def test_upstream_that_speaks_no_http_is_502(reply: bytes) -> None:
    """An upstream that closes, before or within its head, is a bad gateway."""

    async def script(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(reply)

    async with ScriptedOrigin(script) as origin:
        refusal = await _refusal(origin.url)

    assert refusal.status == 502


@every_server
async def test_none_available_is_503(server: str) -> None:
    """With ``fail`` an upstream whose probes fail is not dialled."""
    refusal = await _refusal(
        _dead(), server=server, health={"path": "/health"}, when_none_available="fail"
    )

    assert refusal.status == 503
    assert refusal.one(b"retry-after") is not None


@every_server
async def test_dependencies_run_before_the_dial(server: str) -> None:
    """A refused client reaches no upstream; an allowed one does."""

    def check(connection: HTTPConnection) -> None:
        if connection.headers.get("authorization") != "Bearer s3cret":
            raise HTTPException(401, "who are you", {"www-authenticate": "Bearer"})

    upstream = EchoApp()
    async with (
        echo_server(upstream) as running,
        tunnels(running.url, server=server, include={"dependencies": [Depends(check)]}) as gateway,
    ):
        async with connect(gateway.address) as stranger:
            refusal = await shake_hands(stranger, "/billing/live")
        reached = len(upstream.scopes)
        headers = [(b"authorization", b"Bearer s3cret")]
        async with open_websocket(gateway.address, headers=headers) as client:
            await client.send("hello")
            assert await client.recv() == "hello"

    assert (refusal.status, refusal.one(b"www-authenticate"), reached) == (401, b"Bearer", 0)


@every_server
async def test_client_that_leaves_during_the_handshake_ends_the_dial(server: str) -> None:
    """No failure of the upstream is counted."""
    async with (
        ScriptedOrigin(_silent) as origin,
        tunnels(origin.url, server=server) as gateway,
    ):
        async with connect(gateway.address) as client:
            shaking = asyncio.create_task(shake_hands(client, "/billing/live"))
            await until(lambda: origin.requests)
            shaking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await shaking
        await origin.all_left()
        await no_tunnel_left(gateway)
        (destination,) = gateway.balancer.destinations

    assert destination.failures == 0


async def _silent(connection: Connection) -> None:
    await connection.read_head()
    await connection.peer_left()


@every_server
@pytest.mark.parametrize("reply", [b"", response_bytes(503, b"busy")])
async def test_failed_handshake_is_tried_elsewhere(server: str, reply: bytes) -> None:
    """Like any GET: after a broken connection, or a listed status."""

    async def fails(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(reply)

    async with (
        ScriptedOrigin(fails) as broken,
        echo_server(EchoApp()) as upstream,
        tunnels(
            broken.url,
            upstream.url,
            server=server,
            policy="first",
            retries={"statuses": [503], "backoff": 0},
        ) as gateway,
        open_websocket(gateway.address) as client,
    ):
        await client.send("hello")
        assert await client.recv() == "hello"
        in_flight = [one.in_flight for one in gateway.balancer.destinations]

    assert len(broken.requests) == 1
    assert in_flight == [0, 1]


@pytest.mark.parametrize(("reply", "attempts"), [(b"", 0), (b"HTTP/1.1 101 Sw", 3)])
async def test_failed_handshake_is_not_always_retried(reply: bytes, attempts: int) -> None:
    """Not without retries, and not after a byte of the response."""

    async def fails(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(reply)

    upstream = EchoApp()
    async with ScriptedOrigin(fails) as broken, echo_server(upstream) as running:
        refusal = await _refusal(
            broken.url, running.url, policy="first", retries={"attempts": attempts}
        )

    assert (refusal.status, upstream.scopes) == (502, [])


async def test_failed_handshakes_eject() -> None:
    """The next destination serves."""

    async def hangs_up(connection: Connection) -> None:
        await connection.read_head()

    async with (
        ScriptedOrigin(hangs_up) as broken,
        echo_server(EchoApp()) as upstream,
        tunnels(
            broken.url, upstream.url, policy="round_robin", ejection={"consecutive": 2}
        ) as gateway,
    ):
        statuses = []
        for _ in range(8):
            async with connect(gateway.address) as client:
                statuses.append((await shake_hands(client, "/billing/live")).status)
        ejected = [one.url for one in gateway.balancer.destinations if not one.available]

    assert ejected == [broken.url]
    assert statuses[-3:] == [101, 101, 101]
