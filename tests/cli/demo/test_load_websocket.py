"""The WebSocket of the load, against real and scripted servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from websockets.http11 import Request
from websockets.server import ServerProtocol

from fastapi_proxy_di.cli.demo.load_websocket import LoadWebSocket, WebSocketEnded

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter, ServerProtocol], Awaitable[None]]


@contextlib.asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[LoadWebSocket]:
    """A WebSocket to a server that does what the script says after its handshake."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = ServerProtocol()
        protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
        request = protocol.events_received()[0]
        assert isinstance(request, Request)
        protocol.send_response(protocol.accept(request))
        writer.write(b"".join(protocol.data_to_send()))
        try:
            await script(reader, writer, protocol)
            writer.write(b"".join(protocol.data_to_send()))
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        websocket = LoadWebSocket(server.sockets[0].getsockname()[1], "/echo")
        try:
            yield websocket
        finally:
            await websocket.close()


async def test_messages_of_one_read_are_given_one_by_one() -> None:
    """Two messages and a close arrive in one read."""

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: ServerProtocol
    ) -> None:
        protocol.send_text(b"one")
        protocol.send_ping(b"")
        protocol.send_text(b"two")
        protocol.send_close(1012)

    async with scripted(script) as websocket:
        await websocket.open()
        messages = [await websocket.receive(), await websocket.receive()]
        with pytest.raises(WebSocketEnded, match="closed with 1012"):
            await websocket.receive()

    assert messages == ["one", "two"]


async def test_broken_connection_ends_the_websocket() -> None:
    """A reset ends the WebSocket; sending after it raises nothing."""

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: ServerProtocol
    ) -> None:
        writer.transport.abort()

    async with scripted(script) as websocket:
        await websocket.open()
        with pytest.raises(WebSocketEnded, match="closed with 1006"):
            await websocket.receive()


async def test_read_error_ends_the_websocket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection reset while reading ends the WebSocket."""

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: ServerProtocol
    ) -> None:
        await reader.read()

    async def reset(self: asyncio.StreamReader, count: int) -> bytes:
        raise ConnectionResetError

    async with scripted(script) as websocket:
        await websocket.open()
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.StreamReader, "read", reset)
            with pytest.raises(WebSocketEnded, match="closed with 1006"):
                await websocket.receive()


async def test_refused_handshake_raises_with_the_status() -> None:
    """An ordinary HTTP response refuses the handshake."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        websocket = LoadWebSocket(server.sockets[0].getsockname()[1], "/echo")
        with pytest.raises(WebSocketEnded, match="503"):
            await websocket.open()
        await websocket.close()


async def test_connection_closed_during_the_handshake_raises() -> None:
    """``open`` does not wait for a response then."""

    async def vanish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(vanish, "127.0.0.1", 0) as server:
        websocket = LoadWebSocket(server.sockets[0].getsockname()[1], "/echo")
        async with asyncio.timeout(10):
            with pytest.raises(WebSocketEnded):
                await websocket.open()
        await websocket.close()


async def test_websocket_never_opened_may_be_closed() -> None:
    """``close`` does nothing before ``open``."""
    websocket = LoadWebSocket(9, "/")

    await websocket.close()

    assert websocket.headers == {}
