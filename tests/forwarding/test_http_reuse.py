"""Connections to a destination are reused if their exchange ended cleanly."""

import asyncio

import pytest

from tests.support.gateways import gateway, until
from tests.support.http_client import fetch
from tests.support.origins import Connection, ScriptedOrigin, always, response_bytes

pytestmark = pytest.mark.e2e


_EVIL = response_bytes(body=b"evil")


async def test_clean_connection_is_reused() -> None:
    """Consecutive requests share one connection."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        for method in ("GET", "POST", "DELETE", "GET"):
            reply = await fetch(gate.address, method, "/billing/x", body=b"hello")
            assert reply.status == 200

    assert origin.connections == 1
    assert len(origin.requests) == 4


async def test_parallel_requests_do_not_wait_for_each_other() -> None:
    """The number of connections has no limit."""
    arrived = 0
    all_there = asyncio.Event()

    async def script(connection: Connection) -> None:
        nonlocal arrived
        await connection.read_request()
        arrived += 1
        if arrived == 150:
            all_there.set()
        await all_there.wait()
        await connection.send(response_bytes(body=b"ok"))

    async with ScriptedOrigin(script) as origin, gateway(origin.url) as gate:
        replies = await asyncio.gather(
            *(fetch(gate.address, target="/billing/x") for _ in range(150))
        )

    assert {reply.status for reply in replies} == {200}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("garbage", [_EVIL, b"x", b"HTTP/1.1 ", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_bytes_after_a_response_are_never_served(garbage: bytes, method: str) -> None:
    """Bytes that belong to no request end the connection."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response_bytes(body=b"good") + garbage)
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, gateway(origin.url) as gate:
        first = await fetch(gate.address, method, "/billing/x", body=b"")
        second = await fetch(gate.address, method, "/billing/x", body=b"")

    assert (first.body, second.body) == (b"good", b"good")
    assert origin.connections == 2


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_bytes_on_an_idle_connection_are_never_served(method: str) -> None:
    """They are not taken for the response to the next request."""
    send_it, sent = asyncio.Event(), asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response_bytes(body=b"good"))
        if connection.number == 1:
            await send_it.wait()
            await connection.send(_EVIL)
            sent.set()
            await connection.peer_left()

    async with ScriptedOrigin(script) as origin, gateway(origin.url) as gate:
        first = await fetch(gate.address, method, "/billing/x", body=b"")
        send_it.set()
        await sent.wait()
        second = await fetch(gate.address, method, "/billing/x", body=b"")

    assert (first.body, second.body) == (b"good", b"good")
    assert origin.connections == 2


async def test_late_body_of_head_is_never_served() -> None:
    """A body that is wrongly sent to HEAD is not taken for a response."""

    async def script(connection: Connection) -> None:
        received = await connection.read_request()
        inside = _EVIL if received.method == b"HEAD" else b"good"
        await connection.send(response_bytes(body=inside))
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, gateway(origin.url) as gate:
        head = await fetch(gate.address, "HEAD", "/billing/x")
        reply = await fetch(gate.address, "GET", "/billing/x")

    assert head.status == 200
    assert reply.body == b"good"


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
@pytest.mark.parametrize("reset", [False, True])
async def test_close_between_requests_fails_no_request(method: str, reset: bool) -> None:
    """Whatever the method."""
    closed = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response_bytes(body=b"ok"))
        if reset:
            connection.reset()
        else:
            connection.close()
        closed.set()

    async with ScriptedOrigin(script) as origin, gateway(origin.url) as gate:
        statuses = []
        for _ in range(5):
            closed.clear()
            reply = await fetch(gate.address, method, "/billing/x", body=b"hello")
            statuses.append(reply.status)
            await closed.wait()

    assert statuses == [200] * 5
    assert origin.connections == 5
    assert len(origin.requests) == 5


@pytest.mark.parametrize(
    "raw",
    [
        response_bytes(body=b"ok", headers=[(b"Connection", b"close")]),
        response_bytes(body=b"ok", headers=[(b"Connection", b"x, Close")]),
        response_bytes(body=b"ok").replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
async def test_connection_that_will_close_is_not_reused(raw: bytes) -> None:
    """``Connection: close`` of a destination is respected."""
    async with ScriptedOrigin(always(raw)) as origin, gateway(origin.url) as gate:
        for _ in range(3):
            reply = await fetch(gate.address, target="/billing/x")
            assert reply.body == b"ok"

    assert origin.connections == 3


async def test_idle_connections_are_closed_in_time() -> None:
    """After ``idle_seconds`` the destination sees the close."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, limits={"idle_seconds": 0.1}) as gate,
    ):
        await fetch(gate.address, target="/billing/x")
        await origin.all_left()

    assert origin.connections == 1


async def test_idle_connections_are_limited() -> None:
    """More than ``idle_connections`` are kept for at most a second."""
    arrived = 0
    all_there = asyncio.Event()

    async def script(connection: Connection) -> None:
        nonlocal arrived
        while True:
            await connection.read_request()
            arrived += 1
            if arrived == 5:
                all_there.set()
            await all_there.wait()
            await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, limits={"idle_connections": 2}) as gate,
    ):
        await asyncio.gather(*(fetch(gate.address, target="/billing/x") for _ in range(5)))
        await until(lambda: origin.open_connections <= 2)

        assert origin.open_connections == 2
