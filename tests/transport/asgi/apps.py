"""Plain apps, their messages, and a WebSocket client, for tests of in-process apps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_websocket
from websockets.typing import Subprotocol

from tests.support.gateways import Gateway

Inner = Callable[[ASGIApp | object], str]


def plain(handle: Callable[[Scope, Receive, Send], Any]) -> ASGIApp:
    """Make an ASGI app without a lifespan of a function."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await handle(scope, receive, send)

    return app


def start(status: int = 200, *headers: tuple[bytes, bytes], **more: Any) -> Message:
    """The first message of a response."""
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    """A further message of a response."""
    return {"type": "http.response.body", "body": data, "more_body": more}


def inner_tasks() -> list[str]:
    """Names of the tasks in which requests to in-process apps run."""
    return [
        task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("request of")
    ]


async def talk(
    gate: Gateway,
    say: Callable[[ClientConnection], Any],
    path: str = "/billing/ws",
    offer: tuple[str, ...] = (),
) -> Any:
    """Open a WebSocket through the gateway in a thread and use it."""

    def run() -> Any:
        url = f"ws://{gate.running.authority}{path}"
        offered = [Subprotocol(name) for name in offer] or None
        with connect_websocket(url, subprotocols=offered) as websocket:
            return say(websocket)

    return await asyncio.to_thread(run)


def closing(websocket: ClientConnection) -> tuple[int, str]:
    """Wait until the other side has closed."""
    with pytest.raises(ConnectionClosed) as closed:
        websocket.recv(timeout=10)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    """Raise before anything is sent."""
    raise LookupError("nothing here")
