"""Ends of tunnels by the gateway: shutdown, cancellation, drain. Nothing is left behind."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import Depends, FastAPI, WebSocket

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan
from tests.support.gateways import billing, until
from tests.support.origins import Connection, ScriptedOrigin
from tests.support.websocket_client import Closed, open_websocket
from tests.support.websocket_origin import FramePeer, accepting, frames_from, until_left
from tests.websocket.gateways import every_server, every_uvicorn, no_tunnel_left, serving, tunnels
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


_CLOSE = 8
_PING = 9


def _sockets() -> int:
    """Give the number of open files of this process."""
    return len(list(Path("/dev/fd").iterdir()))


@pytest.fixture(autouse=True)
async def _leaves_nothing() -> AsyncIterator[None]:
    sockets, tasks = _sockets(), asyncio.all_tasks()
    yield
    await until(lambda: _sockets() <= sockets, 10)
    current = asyncio.current_task()
    await until(lambda: not asyncio.all_tasks() - tasks - {current}, 10)


def _hears(heard: list[tuple[int, bytes]]) -> ScriptedOrigin:
    """Make an upstream that records its first frame, and ends."""

    async def script(peer: FramePeer) -> None:
        heard.append(await peer.read())

    return frames_from(script)


@every_uvicorn
async def test_shutdown_closes_both_sides_with_1012(server: str) -> None:
    """For every open tunnel, in bounded time."""
    heard: list[tuple[int, bytes]] = []
    async with _hears(heard) as origin:
        async with tunnels(origin.url, server=server) as gateway:
            opened = [open_websocket(gateway.address) for _ in range(20)]
            clients = [await one.__aenter__() for one in opened]
            await until(lambda: gateway.balancer.status().tunnels == 20)
            started = time.monotonic()
        took = time.monotonic() - started
        ends = [await client.ended() for client in clients]
        for one in opened:
            await one.__aexit__(None, None, None)
        await origin.all_left()

    assert ends == [Closed(1012)] * 20
    assert [(opcode, payload[:2]) for opcode, payload in heard] == [(_CLOSE, b"\x03\xf4")] * 20
    assert took < 10


async def test_shutdown_under_hypercorn_ends_both_sides() -> None:
    """Hypercorn cancels its apps, and the upstream gets 1012."""
    heard: list[tuple[int, bytes]] = []
    async with _hears(heard) as origin:
        async with tunnels(origin.url, server="hypercorn") as gateway:
            opened = open_websocket(gateway.address)
            client = await opened.__aenter__()
            await until(lambda: gateway.balancer.status().tunnels == 1)
        assert (await client.ended()).code != 1000
        await opened.__aexit__(None, None, None)
        await origin.all_left()

    # From Python 3.12 on hypercorn takes its time, and pings go on meanwhile.
    closes = [frame for frame in heard if frame[0] != _PING]
    assert closes in ([], [(_CLOSE, b"\x03\xf4")])


@every_uvicorn
async def test_shutdown_does_not_wait_for_stuck_peers(server: str) -> None:
    """Neither for an upstream that ignores the close nor for a client that reads nothing."""

    async def stuck(connection: Connection) -> None:
        await connection.send(accepting(await connection.read_head()))
        connection.writer.write(b"\x82\x7f" + (2**24).to_bytes(8) + bytes(2**24))
        await asyncio.Event().wait()

    options = {"timeout_graceful_shutdown": 30}
    async with ScriptedOrigin(stuck) as origin:
        async with tunnels(origin.url, server=server, uvicorn=options) as gateway:
            opened = open_websocket(gateway.address)
            await opened.__aenter__()
            await until(lambda: gateway.balancer.status().tunnels == 1)
            started = time.monotonic()
        took = time.monotonic() - started
        await opened.__aexit__(None, None, None)

    assert took < 15


def _impatient(url: str, timers: list[asyncio.Timeout], ended: asyncio.Event) -> FastAPI:
    """Make an app whose endpoint ends its tunnels by a timeout that the test sets."""
    app = FastAPI(lifespan=proxy_lifespan)
    upstream = Upstream(billing(url))

    @app.websocket("/live")
    async def live(websocket: WebSocket, balancer: Balancer = Depends(upstream)) -> None:
        try:
            async with asyncio.timeout(None) as timer:
                timers.append(timer)
                await balancer.forward_websocket(websocket)
        except TimeoutError:
            ended.set()

    return app


@every_server
async def test_cancellation_closes_both_sides_with_1012(server: str) -> None:
    """Then the cancellation of the endpoint is raised."""
    heard: list[tuple[int, bytes]] = []
    timers: list[asyncio.Timeout] = []
    ended = asyncio.Event()
    async with (
        _hears(heard) as origin,
        serving(_impatient(origin.url, timers, ended), server=server) as gateway,
    ):
        async with open_websocket(gateway.address, "/live") as client:
            timers[0].reschedule(asyncio.get_running_loop().time())
            assert await client.ended() == Closed(1012)
        async with asyncio.timeout(10):
            await ended.wait()
        await no_tunnel_left(gateway)
        await origin.all_left()
        ends = gateway.balancer.status().tunnel_ends

    assert heard == [(_CLOSE, b"\x03\xf4")]
    assert ends == {"shutdown": 1}


@every_server
async def test_drain_lets_old_tunnels_finish(server: str) -> None:
    """New tunnels go to other destinations; open ones go on."""
    first, second = EchoApp(), EchoApp()
    async with (
        echo_server(first) as one,
        echo_server(second) as two,
        tunnels(one.url, two.url, server=server, policy="first") as gateway,
        open_websocket(gateway.address) as old,
    ):
        await gateway.balancer.drain(one.url)
        for _ in range(3):
            async with open_websocket(gateway.address) as new:
                await new.send("new")
                assert await new.recv() == "new"
        await old.send("still here")
        assert await old.recv() == "still here"
        assert (len(first.scopes), len(second.scopes)) == (1, 3)
        gateway.balancer.undrain(one.url)
        async with open_websocket(gateway.address):
            assert len(first.scopes) == 2
        await old.close(1000)


@every_server
async def test_drain_with_a_timeout_closes_remaining_tunnels(server: str) -> None:
    """Both sides of each open tunnel get 1001."""
    heard: list[tuple[int, bytes]] = []
    async with (
        _hears(heard) as origin,
        echo_server(EchoApp()) as other,
        tunnels(origin.url, other.url, server=server, policy="first") as gateway,
        open_websocket(gateway.address) as first,
        open_websocket(gateway.address) as second,
    ):
        started = time.monotonic()
        await gateway.balancer.drain(origin.url, timeout=0.1)
        ends = [await first.ended(), await second.ended()]
        took = time.monotonic() - started
        first.client.close()
        second.client.close()
        await no_tunnel_left(gateway)
        await origin.all_left()
        counted = gateway.balancer.status().tunnel_ends

    assert [end.code for end in ends] == [1001, 1001]
    assert [(opcode, payload[:2]) for opcode, payload in heard] == [(_CLOSE, b"\x03\xe9")] * 2
    assert counted == {"drained": 2}
    assert 0.1 <= took < 10


async def test_drain_with_a_timeout_returns_when_all_have_finished() -> None:
    """The drain ends before its timeout if no tunnel is left."""
    async with (
        echo_server(EchoApp()) as upstream,
        echo_server(EchoApp()) as other,
        tunnels(upstream.url, other.url, policy="first") as gateway,
        open_websocket(gateway.address) as client,
    ):
        draining = asyncio.ensure_future(gateway.balancer.drain(upstream.url, timeout=30))
        await until(lambda: not gateway.balancer.destinations[0].available)
        await client.close(1000)
        async with asyncio.timeout(10):
            await draining
        ends = gateway.balancer.status().tunnel_ends

    assert ends == {"client_closed": 1}


async def test_removed_destination_finishes_its_tunnels() -> None:
    """``replace_destinations`` ends no open tunnel."""
    first, second = EchoApp(), EchoApp()
    async with (
        echo_server(first) as one,
        echo_server(second) as two,
        tunnels(one.url) as gateway,
        open_websocket(gateway.address) as old,
    ):
        gateway.balancer.replace_destinations([two.url])
        async with open_websocket(gateway.address) as new:
            await old.send("still here")
            assert await old.recv() == "still here"
            await new.close(1000)
        await old.close(1000)

    assert (len(first.scopes), len(second.scopes)) == (1, 1)


async def test_many_short_tunnels_leave_nothing() -> None:
    """Opened, used and ended in every way: no task, socket or count is left."""
    async with frames_from(until_left) as origin, tunnels(origin.url) as gateway:

        async def visit(number: int) -> None:
            async with open_websocket(gateway.address) as client:
                await client.send("hello")
                if number % 3 == 0:
                    await client.close(1000)
                elif number % 3 == 1:
                    client.client.reset()

        for _ in range(5):
            await asyncio.gather(*(visit(number) for number in range(30)))
        await no_tunnel_left(gateway)
        await origin.all_left()
        status = gateway.balancer.status()

    assert (status.tunnels, status.in_flight, sum(status.tunnel_ends.values())) == (0, 0, 150)
