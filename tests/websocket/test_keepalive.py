"""Idle tunnels: pings keep connections open, and find dead peers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fastapi_proxy_di import WebSocketSettings
from fastapi_proxy_di.transport.websocket.connection import UpstreamWebSocket
from tests.support.gateways import until
from tests.support.virtual_time import run_virtually
from tests.support.websocket_client import Closed, open_websocket
from tests.support.websocket_origin import FramePeer, frames_from
from tests.websocket.gateways import every_server, every_uvicorn, no_tunnel_left, tunnels
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


_PING, _PONG, _CLOSE = 9, 10, 8


class _Hop:
    """A hop that cuts connections which were idle in both directions for a while.

    Attributes:
        passed: How many times something came.
    """

    def __init__(self, port: int, seconds: float) -> None:
        self.passed = 0
        self._port = port
        self._seconds = seconds
        self._timer: asyncio.Timeout | None = None

    def shorten(self, seconds: float) -> None:
        """Cut the last connection after ``seconds`` without a byte from now on."""
        assert self._timer is not None
        self._seconds = seconds
        self._timer.reschedule(asyncio.get_running_loop().time() + seconds)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Give the address of the hop."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            async with asyncio.timeout(self._seconds) as timer, asyncio.TaskGroup() as group:
                self._timer = timer
                group.create_task(self._copy(reader, behind_writer, timer))
                group.create_task(self._copy(behind_reader, writer, timer))
        except TimeoutError:
            pass
        finally:
            writer.transport.abort()
            behind_writer.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timer: asyncio.Timeout
    ) -> None:
        while data := await reader.read(65536):
            self.passed += 1
            timer.reschedule(asyncio.get_running_loop().time() + self._seconds)
            writer.write(data)
            await writer.drain()


async def test_pings_keep_an_idle_tunnel_open() -> None:
    """Each ping restarts the hop's timer, and the tunnel still works.

    The time that an idle tunnel stays open with the default settings is tested in virtual time.
    """
    async with echo_server(EchoApp()) as upstream:
        hop = _Hop(upstream.port, 20.0)
        async with (
            hop.listening() as url,
            tunnels(url, websocket={"ping_interval": 0.02}) as gateway,
            open_websocket(gateway.address) as client,
        ):
            opened = hop.passed
            await until(lambda: hop.passed >= opened + 6)
            await client.send("still there")
            assert await client.recv() == "still there"


async def test_without_pings_an_idle_tunnel_is_cut() -> None:
    """The hop of the test above really cuts connections."""
    async with echo_server(EchoApp()) as upstream:
        hop = _Hop(upstream.port, 20.0)
        async with (
            hop.listening() as url,
            tunnels(url, websocket={"ping_interval": None}) as gateway,
            open_websocket(gateway.address) as client,
        ):
            hop.shorten(0.1)
            assert await client.ended() == Closed(1011, "upstream disconnected")


async def test_silence_ends_no_tunnel() -> None:
    """The timeouts of requests do not apply to a tunnel that is silent for longer than they are."""
    timeouts = {"activity": 0.05, "first_byte": 0.05, "total": 0.05}
    async with (
        echo_server(EchoApp()) as upstream,
        tunnels(upstream.url, timeouts=timeouts, websocket={"ping_interval": None}) as gateway,
        open_websocket(gateway.address) as client,
    ):
        await asyncio.sleep(0.2)
        await client.send("still there")
        assert await client.recv() == "still there"


class _IdleCut(asyncio.Transport):
    """A connection that is cut after 60 s without a byte; its peer sends a pong for every ping.

    Attributes:
        pings: When one was sent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pings: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._cut = self._loop.call_later(60, self.abort)
        self._protocol: asyncio.BufferedProtocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.BufferedProtocol)
        self._protocol = protocol

    def resume_reading(self) -> None:
        """Do nothing, because reading never stops."""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert bytes(data[:2]) == b"\x89\x80", "a masked, empty ping"
        self.pings.append(self._loop.time())
        self._restart()
        self._loop.call_later(0.05, self._pong)

    def _pong(self) -> None:
        self._restart()
        memoryview(self._protocol.get_buffer(2))[:2] = b"\x8a\x00"
        self._protocol.buffer_updated(2)

    def _restart(self) -> None:
        self._cut.cancel()
        self._cut = self._loop.call_later(60, self.abort)

    def abort(self) -> None:
        self._cut.cancel()
        self._loop.call_soon(self._protocol.connection_lost, None)


@pytest.mark.parametrize("pings", [True, False])
def test_default_pings_keep_an_idle_tunnel_through_a_cut_after_60_seconds(*, pings: bool) -> None:
    """An hour of silence with the default settings; without pings a minute is the end."""

    async def idle() -> tuple[float, int, list[float]]:
        settings = WebSocketSettings() if pings else WebSocketSettings(ping_interval=None)
        transport = _IdleCut()
        upstream = UpstreamWebSocket(
            transport, ping_interval=settings.ping_interval, ping_timeout=settings.ping_timeout
        )
        loop = asyncio.get_running_loop()
        started = loop.time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3600):
                await upstream.recv()
        lived, code = loop.time() - started, upstream.close_code if upstream.error else 0
        upstream.abort()
        return lived, code, [at - started for at in transport.pings]

    lived, code, sent = run_virtually(idle())

    assert (round(lived), code) == ((3600, 0) if pings else (60, 1006))
    gaps = [round(later - earlier, 1) for earlier, later in itertools.pairwise([0.0, *sent])]
    # 20 s after the last byte that came, the pong.
    assert set(gaps) == ({20.0, 20.1} if pings else set())


@every_uvicorn
async def test_server_pings_the_client(server: str) -> None:
    """The server's own pings keep the client's hop open."""
    async with (
        echo_server(EchoApp()) as upstream,
        tunnels(upstream.url, server=server, uvicorn={"ws_ping_interval": 0.05}) as gateway,
        open_websocket(gateway.address) as client,
    ):
        receiving = asyncio.create_task(client.recv())
        await until(lambda: client.pings == 3)
        await client.send("still there")
        assert await receiving == "still there"


@every_server
async def test_pings_stay_on_their_hop(server: str) -> None:
    """The gateway sends the pong to each side; the other side sees no ping."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        peer.send(_PING, b"are you there")
        while True:
            seen.append(await peer.read())

    async with frames_from(script) as origin, tunnels(origin.url, server=server) as gateway:
        async with open_websocket(gateway.address) as client:
            await client.send_frame(_PING, b"and you")
            response = await client.recv_frame()
            await client.send("text")
            await client.send("done")
            await until(lambda: (1, b"done") in seen)
        await no_tunnel_left(gateway)

    assert response == (_PONG, b"and you", True)
    assert [one for one in seen if one[0] != _CLOSE] == [
        (_PONG, b"are you there"),
        (1, b"text"),
        (1, b"done"),
    ]


async def test_dead_upstream_is_found() -> None:
    """Without a pong within ``ping_timeout`` it is a bad gateway."""

    async def deaf(peer: FramePeer) -> None:
        await peer.reader.readexactly(0)
        await asyncio.Event().wait()

    async with (
        frames_from(deaf) as origin,
        tunnels(origin.url, websocket={"ping_interval": 0.05, "ping_timeout": 0.1}) as gateway,
        open_websocket(gateway.address) as client,
    ):
        started = time.monotonic()
        assert await client.ended() == Closed(1011, "upstream ping timeout")
        took = time.monotonic() - started
        client.client.close()
        await no_tunnel_left(gateway)
        ends = gateway.balancer.status().tunnel_ends
        (destination,) = gateway.balancer.destinations

    assert ends == {"upstream_ping_timeout": 1}
    assert took < 10
    assert destination.failures == 1


@pytest.mark.slow
@every_uvicorn
async def test_dead_client_is_found(server: str) -> None:
    """The server ends a client without a pong, and the upstream with it.

    The upstream sees an abrupt end or the server's own 1011, never a clean end.
    """
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.append(await peer.read())

    async with (
        frames_from(script) as origin,
        tunnels(
            origin.url, server=server, uvicorn={"ws_ping_interval": 0.05, "ws_ping_timeout": 0.05}
        ) as gateway,
        open_websocket(gateway.address),
    ):
        # The deprecated one gives a dead client its close_timeout of 20 s on top.
        await origin.all_left(30.0)
        await no_tunnel_left(gateway)
        ends = gateway.balancer.status().tunnel_ends

    assert sum(ends.values()) == 1
    assert seen in ([], [(_CLOSE, b"\x03\xf3keepalive ping timeout")])
