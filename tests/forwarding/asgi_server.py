"""A server reduced to ASGI messages, for tests of features that no real server has.

The server offers the extensions that a test names, and keeps every message that the app sends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.types import Message, Receive

from fastapi_proxy_di import Balancer, Upstream
from tests.support.gateways import gateway_app

__all__ = ["AsgiServer", "asgi_gateway"]


class AsgiServer:
    """Sends one request at a time to an app whose lifespan runs.

    Attributes:
        app: The app.
        messages: Every message the app has sent.
        hinted: Set by each early hint.
        fault: Raised when the app sends an early hint.
    """

    def __init__(self, app: FastAPI, extensions: Sequence[str] = ()) -> None:
        self.app = app
        self.messages: list[Message] = []
        self.hinted = asyncio.Event()
        self.fault: Exception | None = None
        self._extensions = extensions
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()

    async def get(self, path: str = "/billing/x", *, receive: Receive | None = None) -> list[Any]:
        """Send a GET as a server does for HTTP/2, and give the messages of the response."""
        self.messages = []
        self._incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"gateway.test")],
            "client": ("192.0.2.7", 4711),
            "server": ("gateway.test", 80),
            "extensions": {name: {} for name in self._extensions},
        }
        async with asyncio.timeout(10):
            await self.app(scope, receive or self.receive, self.send)
        return self.messages

    async def receive(self) -> Message:
        """Give an empty body, then wait for ever."""
        return await self._incoming.get()

    async def send(self, message: Message) -> None:
        """Keep a message."""
        if message["type"] == "http.response.early_hint":
            self.hinted.set()
            if self.fault is not None:
                raise self.fault
        self.messages.append(message)

    @property
    def types(self) -> list[str]:
        """Types of the messages, without their common prefix."""
        return [message["type"].removeprefix("http.response.") for message in self.messages]

    @property
    def balancer(self) -> Balancer:
        """The live upstream."""
        return Upstream("billing").of(self.app)


@contextlib.asynccontextmanager
async def asgi_gateway(
    *destinations: str, extensions: Sequence[str], **options: Any
) -> AsyncIterator[AsgiServer]:
    """Run an app built by ``gateway_app``, without a socket in front."""
    app = gateway_app(*destinations, **options)
    async with app.router.lifespan_context(app):
        yield AsgiServer(app, extensions)
