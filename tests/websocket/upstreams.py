"""An upstream for tunnels: an echo app under a real server, which records its handshakes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from tests.support.servers import Running, run_app

__all__ = ["EchoApp", "echo_server"]


class EchoApp:
    """An ASGI app that sends every message back.

    Args:
        subprotocols: Those it speaks; the first that is offered is chosen.
        headers: Of its 101.

    Attributes:
        scopes: Of the handshakes that came.
        ends: The ``websocket.disconnect`` messages that came.
        open: WebSockets open at the moment.
    """

    def __init__(
        self, *, subprotocols: Sequence[str] = (), headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        self.scopes: list[Scope] = []
        self.ends: asyncio.Queue[Message] = asyncio.Queue()
        self.open = 0
        self._subprotocols = subprotocols
        self._headers = list(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        self.scopes.append(scope)
        await receive()
        offered = scope["subprotocols"]
        chosen = next((name for name in self._subprotocols if name in offered), None)
        await send({"type": "websocket.accept", "subprotocol": chosen, "headers": self._headers})
        self.open += 1
        try:
            with contextlib.suppress(OSError):
                while (message := await receive())["type"] == "websocket.receive":
                    await send({**message, "type": "websocket.send"})
                self.ends.put_nowait(message)
        finally:
            self.open -= 1

    @property
    def scope(self) -> Scope:
        """The scope of the only handshake."""
        assert len(self.scopes) == 1
        return self.scopes[0]

    def all(self, name: bytes) -> list[bytes]:
        """Values of a header of the only handshake, in order."""
        return [value for key, value in self.scope["headers"] if key == name]

    async def end(self) -> Message:
        """Give the next end, as reported by the server."""
        async with asyncio.timeout(10):
            return await self.ends.get()


@contextlib.asynccontextmanager
async def echo_server(app: EchoApp, **options: Any) -> AsyncIterator[Running]:
    """Serve an echo app with room for messages of 128 MiB, without pings of its own."""
    defaults: dict[str, Any] = {
        "ws_max_size": 2**27,
        "ws_ping_interval": None,
        "ws_per_message_deflate": False,
        # Never the process's own variant: what is behind the gateway stays the same.
        "ws": "wsproto",
    }
    async with run_app(app, **{**defaults, **options}) as running:
        yield running
