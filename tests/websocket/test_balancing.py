"""Tunnels are counted, limited, queued, probed, ejected and kept by affinity like requests."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import ssl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.gateways import until
from tests.support.http_client import connect, fetch
from tests.support.origins import Connection, ScriptedOrigin, response_bytes
from tests.support.websocket_client import WebSocketClient, open_websocket, shake_hands
from tests.support.websocket_origin import FramePeer, accepting, frames_from, until_left
from tests.websocket.gateways import every_server, no_tunnel_left, tunnels
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


_TUNNELS = 400
_NO_PINGS = {"ping_interval": None}
_SEATS = 60
"""So many that no destination stays empty by chance: 1 in 10 ** 10."""
_FILES = 4 * _TUNNELS + 200
"""A tunnel between three parties of one process has four ends."""


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process open as many sockets as the test needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(
    ("policy", "tolerance"), [("least_requests", 0), ("power_of_two_choices", 0.1)]
)
@pytest.mark.slow
async def test_long_tunnels_spread_evenly(policy: str, tolerance: float) -> None:
    """Hundreds of open tunnels are counted for all their time; half of them are replaced or not."""
    async with contextlib.AsyncExitStack() as stack:
        origins = [await stack.enter_async_context(frames_from(until_left)) for _ in range(4)]
        gateway = await stack.enter_async_context(
            # The origins send no pongs, and opening all takes a busy machine its time.
            tunnels(*(origin.url for origin in origins), policy=policy, websocket=_NO_PINGS)
        )

        async def open_many(count: int) -> list[tuple[contextlib.AsyncExitStack, WebSocketClient]]:
            opened = []
            for _ in range(count):
                inner = contextlib.AsyncExitStack()
                stack.push_async_callback(inner.aclose)
                opened.append(
                    (inner, await inner.enter_async_context(open_websocket(gateway.address)))
                )
            return opened

        async with asyncio.timeout(110):
            opened = await open_many(_TUNNELS // 2)
            for inner, client in opened[::2]:
                await client.close(1000)
                await inner.aclose()
            await until(lambda: gateway.in_flight == _TUNNELS // 4)
            await open_many(3 * _TUNNELS // 4)
        counts = [one.in_flight for one in gateway.balancer.destinations]
        status = gateway.balancer.status()

    assert sum(counts) == status.in_flight == status.tunnels == _TUNNELS
    assert max(counts) - min(counts) <= tolerance * _TUNNELS / 4


@every_server
async def test_max_in_flight_refuses_one_tunnel_too_many(server: str) -> None:
    """503 with Retry-After, until one ends."""
    async with (
        echo_server(EchoApp()) as upstream,
        tunnels(upstream.url, server=server, limits={"max_in_flight": 1}) as gateway,
    ):
        async with open_websocket(gateway.address) as first:
            async with connect(gateway.address) as client:
                refusal = await shake_hands(client, "/billing/live")
            http = await fetch(gateway.address, target="/billing/x")
            await first.close(1000)
        await no_tunnel_left(gateway)
        async with open_websocket(gateway.address) as second:
            await second.send("free")
            assert await second.recv() == "free"

    assert (refusal.status, http.status) == (503, 503)
    assert refusal.one(b"retry-after") is not None


async def test_destinations_limit_sends_the_next_tunnel_elsewhere() -> None:
    """A full destination is not picked; when all are full it is 503."""
    async with (
        echo_server(EchoApp()) as one,
        echo_server(EchoApp()) as two,
        tunnels(one.url, two.url, policy="first") as gateway,
    ):
        for destination in (one, two):
            gateway.balancer.configure_destination(destination.url, max_in_flight=1)
        async with (
            open_websocket(gateway.address),
            open_websocket(gateway.address),
            connect(gateway.address) as client,
        ):
            counts = [each.in_flight for each in gateway.balancer.destinations]
            refusal = await shake_hands(client, "/billing/live")

    assert counts == [1, 1]
    assert refusal.status == 503


@every_server
async def test_queued_handshake_opens_when_a_tunnel_ends(server: str) -> None:
    """The client is accepted after the wait."""
    async with (
        echo_server(EchoApp()) as upstream,
        tunnels(
            upstream.url,
            server=server,
            limits={"max_in_flight": 1, "queue": 1, "queue_timeout": 10},
        ) as gateway,
        open_websocket(gateway.address) as first,
        connect(gateway.address) as client,
    ):
        waiting = asyncio.create_task(shake_hands(client, "/billing/live"))
        await until(lambda: gateway.balancer.status().queued == 1)
        assert not waiting.done()
        await first.close(1000)
        first.client.close()
        response = await waiting

    assert response.status == 101


@every_server
async def test_cookie_keeps_tunnels_and_requests_on_one_destination(server: str) -> None:
    """The 101 sets the cookie; later handshakes and requests go to the same destination."""
    async with contextlib.AsyncExitStack() as stack:
        origins = [await stack.enter_async_context(_both()) for _ in range(3)]
        gateway = await stack.enter_async_context(
            tunnels(
                *(one.url for one in origins),
                server=server,
                policy="round_robin",
                affinity={"cookie": "seat", "key": "s3cret-s3cret-s3cret-s3cret-s3cret"},
            )
        )
        async with open_websocket(gateway.address) as client:
            (cookie,) = client.response.all(b"set-cookie")
        headers = [(b"cookie", cookie.split(b";")[0])]
        for _ in range(4):
            async with open_websocket(gateway.address, headers=headers) as client:
                assert client.response.all(b"set-cookie") == []
            reply = await fetch(gateway.address, target="/billing/x", headers=headers)
            assert (reply.status, reply.all(b"set-cookie")) == (200, [])

    assert sorted(len(one.requests) for one in origins) == [0, 0, 9]
    seen = next(one for one in origins if one.requests).requests
    assert [b"cookie" in head.names for head in seen] == [False] * 9


async def test_cookie_of_a_request_keeps_its_tunnels() -> None:
    """The tunnels of a page go to the destination of the page."""
    async with contextlib.AsyncExitStack() as stack:
        origins = [await stack.enter_async_context(_both()) for _ in range(3)]
        gateway = await stack.enter_async_context(
            tunnels(
                *(one.url for one in origins),
                policy="round_robin",
                affinity={"cookie": "seat", "key": "s3cret-s3cret-s3cret-s3cret-s3cret"},
            )
        )
        page = await fetch(gateway.address, target="/billing/page")
        (cookie,) = page.all(b"set-cookie")
        headers = [(b"cookie", cookie.split(b";")[0])]
        for _ in range(4):
            async with open_websocket(gateway.address, headers=headers):
                pass

    assert sorted(len(one.requests) for one in origins) == [0, 0, 5]


@pytest.mark.parametrize(
    "settings",
    [{"affinity": {"header": "x-seat"}}, {"policy": "hash", "hash_key": "header:x-seat"}],
    ids=["affinity", "hash"],
)
async def test_header_keeps_tunnels_and_requests_on_one_destination(
    settings: dict[str, Any],
) -> None:
    """Clients with the same affinity key get the same destination, over either protocol."""
    async with contextlib.AsyncExitStack() as stack:
        origins = [await stack.enter_async_context(_both()) for _ in range(3)]
        gateway = await stack.enter_async_context(
            tunnels(*(one.url for one in origins), **settings)
        )
        for seat in range(_SEATS):
            headers = [(b"x-seat", b"%d" % seat)]
            async with open_websocket(gateway.address, headers=headers):
                pass
            async with open_websocket(gateway.address, headers=headers):
                pass
            await fetch(gateway.address, target="/billing/x", headers=headers)

    seats = [{head.one(b"x-seat") for head in one.requests} for one in origins]
    assert sum(map(len, seats)) == _SEATS
    assert min(map(len, seats)) > 0


def _both() -> ScriptedOrigin:
    """Make an origin that serves WebSockets and requests."""

    async def script(connection: Connection) -> None:
        head = await connection.read_head()
        if head.one(b"upgrade") is None:
            await connection.send(response_bytes(200, headers=[(b"connection", b"close")]))
            return
        await connection.send(accepting(head))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await until_left(FramePeer(connection.reader, connection.writer))

    return ScriptedOrigin(script)


async def test_unhealthy_destination_gets_no_new_tunnels_and_keeps_its_old_ones() -> None:
    """Probes do not end open tunnels."""
    unhealthy: set[str] = set()
    opened: Counter[str] = Counter()

    def origin(name: str) -> ScriptedOrigin:
        async def script(connection: Connection) -> None:
            head = await connection.read_head()
            if head.target == b"/health":
                status = 500 if name in unhealthy else 200
                await connection.send(response_bytes(status, headers=[(b"connection", b"close")]))
                return
            opened[name] += 1
            await connection.send(accepting(head))
            peer = FramePeer(connection.reader, connection.writer)
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while (received := await peer.read())[0] != 8:
                    peer.send(*received)

        return ScriptedOrigin(script)

    async with (
        origin("first") as first,
        origin("second") as second,
        tunnels(
            first.url,
            second.url,
            policy="first",
            health={"path": "/health", "interval": 0.05, "fall": 1, "rise": 1},
        ) as gateway,
        open_websocket(gateway.address) as old,
    ):
        unhealthy.add("first")
        await until(lambda: len(gateway.balancer.available) == 1)
        for _ in range(3):
            async with open_websocket(gateway.address) as new:
                await new.send("new")
                assert await new.recv() == "new"
        assert opened == {"first": 1, "second": 3}
        await old.send("still here")
        assert await old.recv() == "still here"
        unhealthy.clear()
        await until(lambda: len(gateway.balancer.available) == 2)
        async with open_websocket(gateway.address):
            assert opened == {"first": 2, "second": 3}


async def test_tunnels_that_break_off_eject() -> None:
    """A destination that breaks off its tunnels is ejected."""

    async def drops(peer: FramePeer) -> None:
        await peer.read()

    picked: Counter[int] = Counter()
    async with (
        frames_from(drops) as dropping,
        echo_server(EchoApp()) as good,
        tunnels(dropping.url, good.url, policy="first", ejection={"consecutive": 1}) as gateway,
    ):
        for _ in range(4):
            async with open_websocket(gateway.address) as client:
                await client.send("hello")
                heard = await client.recv()
                picked[good.port if heard == "hello" else dropping.port] += 1
            await no_tunnel_left(gateway)
        ejected = [one.url for one in gateway.balancer.destinations if one.ejected_until]

    assert ejected == [dropping.url]
    assert picked == {dropping.port: 1, good.port: 3}


async def _echo_once(connection: Connection) -> None:
    """Accept, send the first message back, and wait for the end."""
    await connection.send(accepting(await connection.read_head()))
    peer = FramePeer(connection.reader, connection.writer)
    peer.send(*await peer.read())
    await connection.peer_left()


async def test_tunnels_reach_a_unix_socket(tmp_path: Path) -> None:
    """The handshake uses the transport of requests."""
    async with (
        ScriptedOrigin(_echo_once, unix_path=str(tmp_path / "app.sock")) as origin,
        tunnels(origin.url) as gateway,
        open_websocket(gateway.address) as client,
    ):
        await client.send("hello")
        assert await client.recv() == "hello"


async def test_tunnels_use_tls(tmp_path: Path) -> None:
    """Verified like every connection to an ``https://`` destination."""
    authority = trustme.CA()
    roots = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(str(roots))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with (
        ScriptedOrigin(_echo_once, tls=context) as origin,
        tunnels(origin.url, tls={"ca_file": roots}) as gateway,
        tunnels(origin.url) as doubting,
    ):
        async with open_websocket(gateway.address) as client:
            await client.send(b"\x00" * 200_000)
            assert await client.recv() == b"\x00" * 200_000
        async with connect(doubting.address) as refused:
            assert (await shake_hands(refused, "/billing/live")).status == 502
