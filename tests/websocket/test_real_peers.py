"""Tunnels work with the WebSocket clients and servers that people use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import aiohttp
import aiohttp.web
import httpx
import pytest
import websockets
import wsproto
import wsproto.connection
import wsproto.events
from httpx_ws import AsyncWebSocketSession, aconnect_ws
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as websockets_connect
from websockets.typing import Subprotocol

from tests.support.websocket_client import open_websocket
from tests.support.websocket_origin import FramePeer, frames_from
from tests.websocket.gateways import every_server, tunnels
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


_MESSAGES: Final[list[str | bytes]] = [
    "grüße",
    b"\x00\xff",
    "x" * 300_000,
    bytes(range(256)) * 1000,
    "",
    b"",
]
_OFFER: Final = ["v2.chat", "v1.chat"]
Talk = Callable[[str], Awaitable[tuple[list[str | bytes], str | None]]]


async def _talk_websockets(url: str) -> tuple[list[str | bytes], str | None]:
    """Talk by the library ``websockets``, which offers permessage-deflate."""

    def talk() -> tuple[list[str | bytes], str | None]:
        offer = [Subprotocol(name) for name in _OFFER]
        with websockets_connect(url, subprotocols=offer) as connection:
            got = []
            for message in _MESSAGES:
                connection.send(message)
                got.append(connection.recv(timeout=10))
            return got, connection.subprotocol

    return await asyncio.to_thread(talk)


async def _talk_aiohttp(url: str) -> tuple[list[str | bytes], str | None]:
    """Talk by aiohttp's client, compressed."""
    got: list[str | bytes] = []
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, protocols=_OFFER, compress=15) as connection,
    ):
        for message in _MESSAGES:
            if isinstance(message, str):
                await connection.send_str(message)
            else:
                await connection.send_bytes(message)
            got.append((await connection.receive(10)).data)
        return got, connection.protocol


async def _talk_httpx_ws(url: str) -> tuple[list[str | bytes], str | None]:
    """Talk by httpx-ws, which uses wsproto."""
    got: list[str | bytes] = []
    connection: AsyncWebSocketSession
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        aconnect_ws(
            url.replace("ws://", "http://"),
            client,
            subprotocols=_OFFER,
            max_message_size_bytes=2**24,
        ) as connection,
    ):
        for message in _MESSAGES:
            if isinstance(message, str):
                await connection.send_text(message)
                got.append(await connection.receive_text(10))
            else:
                await connection.send_bytes(message)
                got.append(await connection.receive_bytes(10))
        return got, connection.subprotocol


async def _talk_wsproto(url: str) -> tuple[list[str | bytes], str | None]:
    """Talk by wsproto, with every message in two fragments."""
    authority, _, path = url.removeprefix("ws://").partition("/")
    host, _, port = authority.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    protocol = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    request = wsproto.events.Request(host=authority, target=f"/{path}", subprotocols=_OFFER)
    writer.write(protocol.send(request))

    async def events() -> AsyncIterator[wsproto.events.Event]:
        while data := await reader.read(65536):  # pragma: no branch - the last message ends it
            protocol.receive_data(data)
            for event in protocol.events():
                yield event

    got: list[str | bytes] = []
    chosen: str | None = None
    pieces: list[Any] = []
    stream = events()
    try:
        async for event in stream:  # pragma: no branch - likewise
            if isinstance(event, wsproto.events.AcceptConnection):
                chosen = event.subprotocol
            else:
                assert isinstance(event, wsproto.events.TextMessage | wsproto.events.BytesMessage)
                pieces.append(event.data)
                if not event.message_finished:
                    continue
                text = isinstance(event, wsproto.events.TextMessage)
                got.append("".join(pieces) if text else b"".join(map(bytes, pieces)))
                pieces.clear()
            if len(got) == len(_MESSAGES):
                break
            message = _MESSAGES[len(got)]
            half = len(message) // 2
            for data, last in ((message[:half], False), (message[half:], True)):
                writer.write(
                    protocol.send(
                        wsproto.events.TextMessage(data, message_finished=last)
                        if isinstance(data, str)
                        else wsproto.events.BytesMessage(data, message_finished=last)
                    )
                )
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
        writer.close()
    return got, chosen


@every_server
@pytest.mark.parametrize(
    "talk",
    [_talk_websockets, _talk_aiohttp, _talk_httpx_ws, _talk_wsproto],
    ids=lambda t: t.__name__,
)
async def test_clients_talk_through_the_gateway(server: str, talk: Talk) -> None:
    """Each gets the upstream's subprotocol, and its own messages back in order."""
    async with (
        echo_server(EchoApp(subprotocols=["v1.chat"])) as upstream,
        tunnels(upstream.url, server=server) as gateway,
    ):
        got, subprotocol = await talk(f"ws://{gateway.running.authority}/billing/live")

    assert got == _MESSAGES
    assert subprotocol == "v1.chat"


@every_server
async def test_wsproto_reads_the_close_frame_of_a_lost_upstream(server: str) -> None:
    """Code and reason; it takes 1014 for a protocol error (as gorilla/websocket does)."""

    async def vanish(peer: FramePeer) -> None:
        peer.reset()

    connection = wsproto.connection.Connection(wsproto.ConnectionType.CLIENT)
    events: list[wsproto.events.Event] = []
    async with (
        frames_from(vanish) as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):
        while not events:
            connection.receive_data(await client.client.reader.read(65536))
            events.extend(connection.events())

    (closed,) = events
    assert isinstance(closed, wsproto.events.CloseConnection)
    assert (closed.code, closed.reason) == (1011, "upstream disconnected")


@contextlib.asynccontextmanager
async def _websockets_server() -> AsyncIterator[str]:
    async def echo(connection: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(message)

    offer = [Subprotocol("v1.chat")]
    async with websockets.serve(echo, "127.0.0.1", 0, subprotocols=offer) as server:
        host, port = next(iter(server.sockets)).getsockname()
        yield f"http://{host}:{port}"


@contextlib.asynccontextmanager
async def _aiohttp_server() -> AsyncIterator[str]:
    async def echo(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        connection = aiohttp.web.WebSocketResponse(protocols=["v1.chat"])
        await connection.prepare(request)
        async for message in connection:
            if message.type is aiohttp.WSMsgType.TEXT:
                await connection.send_str(message.data)
            else:
                await connection.send_bytes(message.data)
        return connection

    app = aiohttp.web.Application()
    app.router.add_get("/{path:.*}", echo)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    try:
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.parametrize("serve", [_websockets_server, _aiohttp_server], ids=lambda t: t.__name__)
async def test_servers_talk_through_the_gateway(
    serve: Callable[[], contextlib.AbstractAsyncContextManager[str]], *, compression: bool
) -> None:
    """Popular servers as upstreams, plain and compressed."""
    async with (
        serve() as url,
        tunnels(url, websocket={"compression": compression}) as gateway,
        open_websocket(gateway.address, subprotocols=_OFFER) as client,
    ):
        for message in _MESSAGES:
            await client.send(message)
            assert await client.recv() == message
        assert client.subprotocol == b"v1.chat"
        assert (await client.close(1000)).code == 1000
