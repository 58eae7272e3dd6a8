"""The gateway's server within a running loop."""

from __future__ import annotations

import asyncio
import signal
import socket

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di.cli.background_server import serving
from fastapi_proxy_di.cli.demo.load_http import HttpConnection


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI app without a lifespan."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def test_serving_answers_within_the_block_only() -> None:
    """It serves once the block begins, and its port is free afterwards."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    connection = HttpConnection(port)
    handler = signal.getsignal(signal.SIGINT)

    async with serving(uvicorn.Config(hello), listening):
        answer = await connection.send("GET", "/")
        during = signal.getsignal(signal.SIGINT)
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        await connection.send("GET", "/")

    assert answer.status == 204
    assert during is handler


async def test_serving_raises_what_keeps_the_server_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that ends at once is not waited for."""

    async def fail(self: uvicorn.Server, sockets: object = None) -> None:
        raise OSError("no more memory")

    monkeypatch.setattr(uvicorn.Server, "startup", fail)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        pytest.raises(OSError, match="no more memory"),
    ):
        await asyncio.wait_for(serving(uvicorn.Config(hello), listening).__aenter__(), 10)
