"""The HTTP connection of the load, against scripted servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import h11
import pytest

from fastapi_proxy_di.cli.demo.load_http import HttpConnection

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[HttpConnection]:
    """A connection to a server that does what the script says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        connection = HttpConnection(server.sockets[0].getsockname()[1])
        try:
            yield connection
        finally:
            connection.close()


async def test_connection_is_kept_for_the_next_request() -> None:
    """Two responses come on one connection; an informational one is skipped."""
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for body in (b"one", b"two"):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nX-Who: me\r\n")
            writer.write(b"content-length: 3\r\n\r\n" + body)

    async with scripted(script) as connection:
        response = await connection.send("GET", "/")
        first = await connection.read()
        await connection.send("GET", "/")
        second = await connection.read()

    assert (response.status, response.headers["x-who"]) == (200, "me")
    assert (first, second, connections) == (b"one", b"two", 1)


async def test_connection_closed_by_the_server_is_reopened() -> None:
    """``connection: close`` is respected."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall")

    async with scripted(script) as connection:
        await connection.send("GET", "/")
        first = await connection.read()
        await connection.send("GET", "/")
        second = await connection.read()

    assert (first, second) == (b"all", b"all")


async def test_early_response_ends_a_large_upload() -> None:
    """The rest of the body is not sent, and the connection is not used again."""
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        while await reader.read(65536):
            pass

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000
            await asyncio.sleep(0)

    async with scripted(script) as connection:
        response = await connection.send("POST", "/", [("transfer-encoding", "chunked")], body())
        refusal = await connection.read()
        await connection.send("GET", "/")
        await connection.read()

    assert (response.status, refusal) == (413, b"no")
    assert connections == 2


async def test_connection_closed_without_a_response_raises() -> None:
    """The connection closes after the request."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with scripted(script) as connection:
        with pytest.raises(ConnectionResetError, match="without a response"):
            await connection.send("GET", "/")


async def test_body_that_ends_early_raises() -> None:
    """The body has fewer bytes than announced."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")

    async with scripted(script) as connection:
        await connection.send("GET", "/")
        with pytest.raises(h11.RemoteProtocolError):
            await connection.read()
