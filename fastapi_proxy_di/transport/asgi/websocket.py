"""A WebSocket to an in-process app: its handshake, then whole messages both ways.

An accepted handshake gives a 101, so that the forwarder checks and counts it like any other.
Then there is an `OpenWebSocket` instead of a socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from websockets.utils import accept_key

from fastapi_proxy_di.errors import ProxyError, UpstreamDisconnected, UpstreamProtocolError
from fastapi_proxy_di.transport.asgi.exchange import AsgiExchange, headers_in
from fastapi_proxy_di.transport.asgi.inner_app import Message
from fastapi_proxy_di.transport.exchange import BODY_HIGH_WATER_BYTES
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.transport.signal import Signal
from fastapi_proxy_di.wire.close import Close

_CLOSE_SECONDS: Final = 1.0
"""How long the app may take to return after the end of the WebSocket."""


class AsgiHandshake(AsgiExchange):
    """A `TransportExchange` whose 101 opens a WebSocket.

    Args:
        scope: The ASGI scope for the app.
        key: The ``Sec-WebSocket-Key`` of the request.
    """

    headers: Headers

    def __init__(self, scope: dict[str, Any], key: bytes) -> None:
        super().__init__(scope, b"", more=False)
        self._key = key
        self._connected = False
        self._channel = AsgiWebSocket()

    def websocket(self, *, max_message_bytes: int | None) -> AsgiWebSocket:
        """Return the WebSocket that a 101 opened.

        Args:
            max_message_bytes: Longest message in bytes, ``None`` for any.
        """
        self._channel.open(max_message_bytes)
        return self._channel

    def close(self) -> None:
        if self.status == 101:
            self._channel.abort()
        else:
            super().close()

    async def _receive(self) -> Message:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        if self.status == 101:
            return await self._channel.next_for_app()
        # Before the app's response, or after a refusal, the app can only get the disconnect.
        while not self._over:
            await self._upload_moved.wait()
            if self.status == 101:
                return await self._channel.next_for_app()
        return {"type": "websocket.disconnect", "code": 1006, "reason": ""}

    async def _send(self, message: Message) -> None:
        what: str = message["type"]
        if self.status == 101:
            await self._channel.take_from_app(message)
        elif what.startswith("websocket.http."):
            await super()._send({**message, "type": what.removeprefix("websocket.")})
        elif what == "websocket.close" and not self.status:
            await super()._send(_FORBIDDEN)
            await super()._send({"type": "http.response.body"})
        elif what == "websocket.accept" and not self.status and not self._gone:
            self._accept(message)
        else:
            await super()._send(message)

    def _accept(self, message: Message) -> None:
        subprotocol: str | None = message.get("subprotocol")
        self.headers = [
            (b"connection", b"upgrade"),
            (b"upgrade", b"websocket"),
            (b"sec-websocket-accept", accept_key(self._key.decode()).encode()),
            *headers_in(message),
        ]
        if subprotocol is not None:
            self.headers.append((b"sec-websocket-protocol", subprotocol.encode("latin-1")))
        self.status = 101
        self._moved()
        self._upload_moved.notify()

    def _broken(self, what: str, cause: Exception | None) -> None:
        if self.status != 101:
            super()._broken(what, cause)
        else:
            self._channel.app_ended(what, cause)


_FORBIDDEN: Final = {
    "type": "http.response.start",
    "status": 403,
    "headers": [(b"content-length", b"0")],
}


class AsgiWebSocket:
    """An `OpenWebSocket` to an app; see there for the meaning of its members."""

    def __init__(self) -> None:
        self.max_message_bytes: int | None = None
        self.close_code: int = 1006
        self.close_reason: str = ""
        self.error: ProxyError | None = None
        self.received_messages: int = 0
        self.received_bytes: int = 0
        self.sent_messages: int = 0
        self.sent_bytes: int = 0
        self._opened = False
        self._ended = False
        self._up: deque[str | bytes] = deque()
        self._up_size = 0
        self._down: deque[str | bytes] = deque()
        self._down_size = 0
        self._up_moved = Signal()
        self._up_taken = Signal()
        self._down_moved = Signal()
        self._down_taken = Signal()
        self._app_done = asyncio.Event()

    # -- what the tunnel calls --------------------------------------------------------

    async def recv(self) -> str | bytes | None:
        while not self._down:
            if self._ended:
                return None
            await self._down_moved.wait()
        message = self._down.popleft()
        self._down_size -= len(message)
        self._down_taken.notify()
        return message

    async def send(self, data: str | bytes) -> None:
        if self._ended:
            return
        size = _size(data)
        self.sent_messages += 1
        self.sent_bytes += size
        self._up.append(data)
        self._up_size += size
        self._up_moved.notify()
        while self._up_size > BODY_HIGH_WATER_BYTES and not self._ended:
            await self._up_taken.wait()

    def start_close(self, close: Close) -> None:
        self._end(1005 if close.code is None else close.code, close.reason)
        self._down.clear()

    async def wait_closed(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._app_done.wait()
        except TimeoutError:
            pass  # the app goes on, as behind a server

    def abort(self) -> None:
        self._end(1006, "")

    # -- the app's side ----------------------------------------------------------------

    def open(self, max_message_bytes: int | None) -> None:
        """Accept messages from the app from now on."""
        self.max_message_bytes = max_message_bytes
        self._opened = True
        self._down_taken.notify()

    async def next_for_app(self) -> Message:
        """Give the app the client's next message, and the disconnect at the end."""
        while not self._up:
            if self._ended:
                return {
                    "type": "websocket.disconnect",
                    "code": self.close_code,
                    "reason": self.close_reason,
                }
            await self._up_moved.wait()
        data = self._up.popleft()
        self._up_size -= _size(data)
        self._up_taken.notify()
        kind = "text" if isinstance(data, str) else "bytes"
        return {"type": "websocket.receive", kind: data}

    async def take_from_app(self, message: Message) -> None:
        """Handle a message that the app sends after its handshake.

        Raises:
            OSError: The WebSocket has ended.
            RuntimeError: The message must not be sent now.
        """
        if self._ended:
            raise OSError("the WebSocket has ended")
        what: str = message["type"]
        if what == "websocket.close":
            self._end(message.get("code", 1000), message.get("reason") or "")
        elif what == "websocket.send":
            await self._deliver(message)
        else:
            raise RuntimeError(f"{what!r} must not be sent now")

    def app_ended(self, what: str, cause: Exception | None) -> None:
        """End the WebSocket after the app: with 1000 if it returned, 1011 if it raised."""
        if cause is None:
            self._end(1000, "")
        elif not self._ended:
            self.error = UpstreamDisconnected(f"the in-process app {what}")
            self.error.__cause__ = cause
            self._end(1011, "")
        self._app_done.set()

    async def _deliver(self, message: Message) -> None:
        text: str | None = message.get("text")
        data: str | bytes = text if text is not None else bytes(message.get("bytes") or b"")
        while not self._ended and (not self._opened or self._down_size > BODY_HIGH_WATER_BYTES):
            await self._down_taken.wait()
        if self._ended:
            raise OSError("the WebSocket has ended")
        size = _size(data)
        if self.max_message_bytes is not None and size > self.max_message_bytes:
            self.error = UpstreamProtocolError("the WebSocket message is too big")
            self._end(1009, "message too big")
            raise OSError("the WebSocket has ended: message too big")
        self.received_messages += 1
        self.received_bytes += size
        self._down.append(data)
        self._down_size += len(data)
        self._down_moved.notify()

    def _end(self, code: int, reason: str) -> None:
        """Store the close code and reason of the first end; later ones are ignored."""
        if self._ended:
            return
        self._ended = True
        self.close_code = code
        self.close_reason = reason
        for signal in (self._up_moved, self._up_taken, self._down_moved, self._down_taken):
            signal.notify()


def _size(data: str | bytes) -> int:
    """The payload's length in bytes."""
    return len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode())
