"""Runs a real server whose only route is a tunnel, with a client and an upstream."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import websockets
from starlette.types import Receive, Scope, Send
from websockets.exceptions import ConnectionClosed

from fastapi_proxy_di.forwarding.tunnel import Tunnel, TunnelEnd
from tests.support.gateways import until
from tests.support.servers import run_app
from tests.support.websocket_dial import dial
from tests.support.websocket_origin import FramePeer, frames_from

__all__ = [
    "BINARY",
    "CLOSE",
    "SERVERS",
    "TEXT",
    "Script",
    "TunnelServer",
    "connect",
    "copying_tasks",
    "echoing",
    "ended",
    "raw_client",
    "scripted",
    "tunnel_server",
    "until_left",
]

TEXT, BINARY, CLOSE = 1, 2, 8
SERVERS = ["websockets-sansio", "wsproto"]
"""Implementations of WebSocket under uvicorn."""
Script = Callable[[FramePeer], Awaitable[None]]


class TunnelServer:
    """A server whose only route is a tunnel to one upstream.

    Attributes:
        url: Where clients connect.
        tunnels: Every tunnel that was opened.
        tasks: The tasks they ran in.
        ends: What each ``run`` gave or raised.
    """

    def __init__(self, upstream: tuple[str, int], options: dict[str, Any]) -> None:
        self.url = ""
        self.tunnels: list[Tunnel] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.ends: asyncio.Queue[TunnelEnd | BaseException] = asyncio.Queue()
        self._upstream = upstream
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        await receive()
        upstream, _ = await dial(*self._upstream, **self._options)
        await send({"type": "websocket.accept"})
        tunnel = Tunnel(receive, send, upstream, name="billing")
        self.tunnels.append(tunnel)
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        try:
            self.ends.put_nowait(await tunnel.run())
        except BaseException as error:
            self.ends.put_nowait(error)
            raise

    async def end(self, seconds: float = 10.0) -> TunnelEnd:
        """Wait for the end of a tunnel; no task may be left."""
        end = await asyncio.wait_for(self.ends.get(), seconds)
        assert isinstance(end, TunnelEnd)
        assert not copying_tasks()
        return end


def copying_tasks() -> list[asyncio.Task[Any]]:
    """Give the tasks of tunnels that run."""
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("websocket ")]


@contextlib.asynccontextmanager
async def tunnel_server(
    upstream: tuple[str, int], *, ws: str = "websockets-sansio", size: int = 2**24, **options: Any
) -> AsyncIterator[TunnelServer]:
    """Run a server whose tunnels go to an address."""
    gateway = TunnelServer(upstream, options)
    async with run_app(gateway, ws=ws, ws_max_size=size, ws_ping_interval=None) as running:
        gateway.url = f"ws://{running.authority}/"
        yield gateway


@contextlib.asynccontextmanager
async def scripted(script: Script, **options: Any) -> AsyncIterator[TunnelServer]:
    """Run a tunnel server in front of an upstream that speaks frame by frame."""
    async with frames_from(script) as origin, tunnel_server(origin.address, **options) as gateway:
        yield gateway


@contextlib.asynccontextmanager
async def echoing(**options: Any) -> AsyncIterator[TunnelServer]:
    """Run a gateway in front of the ``websockets`` server, which echoes."""

    async def echo(connection: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None, compression=None) as server:
        host, port = next(iter(server.sockets)).getsockname()
        async with tunnel_server((host, port), **options) as gateway:
            yield gateway


def connect(gateway: TunnelServer, **options: Any) -> Any:
    """Connect a client of the ``websockets`` library."""
    return websockets.connect(gateway.url, max_size=None, compression=None, **options)


async def until_left(peer: FramePeer) -> None:
    """Drop everything until the gateway closes."""
    while await peer.reader.read(65536):
        pass


async def ended(client: Any) -> tuple[int, str]:
    """Wait until the client has been closed; give its close code and reason."""
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(client.recv(), 10)
    return client.close_code, client.close_reason


@contextlib.asynccontextmanager
async def raw_client(gateway: TunnelServer) -> AsyncIterator[socket.socket]:
    """Open a WebSocket on a raw socket."""
    host, _, port = gateway.url.removeprefix("ws://").rstrip("/").partition(":")
    loop = asyncio.get_running_loop()
    with socket.socket() as raw:
        raw.setblocking(False)
        await loop.sock_connect(raw, (host, int(port)))
        await loop.sock_sendall(
            raw,
            b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
        )
        assert (await loop.sock_recv(raw, 12)) == b"HTTP/1.1 101"
        await until(lambda: len(gateway.tunnels) == 1)
        yield raw
