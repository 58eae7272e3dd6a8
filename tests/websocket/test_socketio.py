"""Socket.IO through the gateway: polling, the upgrade to a WebSocket, and affinity."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import socketio

from tests.support.servers import Running, run_app
from tests.websocket.gateways import every_server, no_tunnel_left, tunnels

pytestmark = pytest.mark.e2e


class _Chat:
    """A Socket.IO service that echoes."""

    def __init__(self) -> None:
        self.server = socketio.AsyncServer(async_mode="asgi")
        self.transports: list[str] = []
        self.ended = asyncio.Event()
        self.app = socketio.ASGIApp(self.server)
        self.server.on("say", self._say)
        self.server.on("disconnect", self._disconnect)

    async def _say(self, sid: str, what: Any) -> dict[str, Any]:
        self.transports.append(self.server.transport(sid))
        await self.server.emit("heard", what, to=sid)
        return {"got": what}

    def _disconnect(self, sid: str, reason: str) -> None:
        self.ended.set()


@contextlib.asynccontextmanager
async def _service(chat: _Chat) -> AsyncIterator[Running]:
    async with run_app(chat.app, lifespan="off") as running:
        yield running


@every_server
@pytest.mark.parametrize("transports", [["websocket"], ["polling", "websocket"]])
async def test_socketio_talks_through_the_gateway(server: str, transports: list[str]) -> None:
    """Events, acknowledgements and binary data, by either transport and after the upgrade."""
    chat = _Chat()
    async with _service(chat) as upstream, tunnels(upstream.url, server=server) as gateway:
        async with aiohttp.ClientSession() as session:
            client = socketio.AsyncClient(http_session=session, reconnection=False)
            heard: asyncio.Queue[Any] = asyncio.Queue()
            client.on("heard", heard.put)
            async with asyncio.timeout(20):
                await client.connect(
                    gateway.running.url,
                    socketio_path="/billing/socket.io",
                    transports=transports,
                )
                response = await client.call("say", {"text": "grüße", "data": b"\x00\xff"})
                said = await heard.get()
                used = client.transport()
                await client.disconnect()
                await chat.ended.wait()
        await no_tunnel_left(gateway)

    assert response == {"got": {"text": "grüße", "data": b"\x00\xff"}}
    assert said == {"text": "grüße", "data": b"\x00\xff"}
    assert used == transports[-1]
    assert chat.transports == [transports[-1]]


async def test_socketio_needs_affinity_on_several_destinations() -> None:
    """A polling session is in one process, so the cookie keeps requests and upgrade there."""
    chats = [_Chat(), _Chat(), _Chat()]
    async with contextlib.AsyncExitStack() as stack:
        services = [await stack.enter_async_context(_service(chat)) for chat in chats]
        gateway = await stack.enter_async_context(
            tunnels(
                *(service.url for service in services),
                policy="round_robin",
                affinity={"cookie": "seat", "key": "s3cret-s3cret-s3cret-s3cret-s3cret"},
            )
        )
        for _ in chats:
            # By default its jar takes no cookies of bare addresses.
            jar = aiohttp.CookieJar(unsafe=True)
            async with aiohttp.ClientSession(cookie_jar=jar) as session, asyncio.timeout(20):
                client = socketio.AsyncClient(http_session=session, reconnection=False)
                await client.connect(gateway.running.url, socketio_path="/billing/socket.io")
                assert await client.call("say", "hello") == {"got": "hello"}
                assert client.transport() == "websocket"
                await client.disconnect()
        for chat in chats:
            async with asyncio.timeout(10):
                await chat.ended.wait()

    assert [chat.transports for chat in chats] == [["websocket"]] * 3
