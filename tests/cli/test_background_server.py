"""The background server of the commands."""

from __future__ import annotations

import asyncio
import signal
import socket

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di.cli.background_server import serving
from fastapi_proxy_di.cli.demo.load_http import HttpConnection

pytestmark = pytest.mark.e2e


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI app without a lifespan."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def test_serving_responds_within_the_block_only() -> None:
    """The server responds within the block; the port is free afterwards."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    connection = HttpConnection(port)
    handler = signal.getsignal(signal.SIGINT)

    async with serving(uvicorn.Config(hello), listening):
        response = await connection.send("GET", "/")
        during = signal.getsignal(signal.SIGINT)
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        await connection.send("GET", "/")

    assert response.status == 204
    assert during is handler


async def test_serving_raises_the_error_of_a_failed_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that ends before it serves does not block."""

    async def fail(self: uvicorn.Server, sockets: object = None) -> None:
        raise OSError("no more memory")

    monkeypatch.setattr(uvicorn.Server, "startup", fail)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        pytest.raises(OSError, match="no more memory"),
    ):
        await asyncio.wait_for(serving(uvicorn.Config(hello), listening).__aenter__(), 10)
