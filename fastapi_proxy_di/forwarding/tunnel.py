"""Copies messages between an accepted client WebSocket and an open upstream WebSocket.

The client's messages are copied in the caller's task, the upstream's messages in a second,
named task. Both copies only store how the tunnel ended; the caller's task then closes both
sides.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from fastapi_proxy_di.errors import ProxyError, UpstreamProtocolError, UpstreamTimeout
from fastapi_proxy_di.transport.protocol import OpenWebSocket
from fastapi_proxy_di.wire.close import Close, close_downwards, close_upwards

__all__ = ["Tunnel", "TunnelEnd", "WebSocketEnd"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# How long a side may delay an end that the proxy decided on (shutdown, drain, a limit).
_END_SECONDS: Final = 1.0
# After the client has disconnected, the send of ASGI servers raises an OSError (ASGI 2.4), or a
# RuntimeError if the server itself has closed, for example after its ping timeout.
_CLIENT_LEFT: Final = (OSError, RuntimeError)


class WebSocketEnd(Enum):
    """The side or reason that ended a tunnel. Logs and records name it by its value."""

    CLIENT_CLOSED = "client_closed"
    CLIENT_VANISHED = "client_vanished"
    UPSTREAM_CLOSED = "upstream_closed"
    UPSTREAM_VANISHED = "upstream_vanished"
    UPSTREAM_PING_TIMEOUT = "upstream_ping_timeout"
    UPSTREAM_PROTOCOL_ERROR = "upstream_protocol_error"
    INVALID_DATA = "invalid_data"
    MESSAGE_TOO_BIG = "message_too_big"
    DRAINED = "drained"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class TunnelEnd:
    """The end of a tunnel: reason, close code, and counts of messages and bytes.

    Attributes:
        reason: The side or reason that ended the tunnel.
        code: Close code of the side that ended the tunnel; 1005 for an empty close frame,
            1006 for a lost connection.
        close_reason: The text that came with the code.
        error: The error of the upstream that ended the tunnel, ``None`` for other reasons.
        upward_messages: Number of messages from client to upstream.
        upward_bytes: Payload of these messages in bytes.
        downward_messages: Number of messages from upstream to client.
        downward_bytes: Payload of these messages in bytes.
    """

    reason: WebSocketEnd
    code: int
    close_reason: str
    error: ProxyError | None
    upward_messages: int
    upward_bytes: int
    downward_messages: int
    downward_bytes: int


@dataclass(frozen=True, slots=True)
class _Ending:
    """Reason for the end of a tunnel, and the close frames to send to both sides.

    Attributes:
        to_client: Close frame for the client, ``None`` if it has disconnected or is closing.
        to_upstream: Close frame for the upstream, ``None`` to abort the connection. No effect
            if the upstream ended first.
        seconds: How long the client may take to read the messages before its close frame;
            ``None`` is no limit.
    """

    reason: WebSocketEnd
    code: int
    close_reason: str = ""
    to_client: Close | None = None
    to_upstream: Close | None = None
    seconds: float | None = None


class Tunnel:
    """One accepted client WebSocket and one open upstream WebSocket.

    Args:
        receive: The client's ASGI ``receive``, after ``websocket.connect``.
        send: The client's ASGI ``send``, after ``websocket.accept``.
        upstream: The WebSocket to the upstream. Its ``max_message_bytes`` also limits the
            messages of the client.
        name: Name of the upstream, for the task's name.

    Attributes:
        end: The end of the tunnel, once ``run`` has ended or was cancelled; ``None`` if
            ``receive`` or ``send`` raised an exception that servers do not raise.
    """

    __slots__ = ("_ending", "_name", "_receive", "_scope", "_send", "_upstream", "end")

    def __init__(
        self, receive: Receive, send: Send, upstream: OpenWebSocket, *, name: str = ""
    ) -> None:
        self._receive = receive
        self._send = send
        self._upstream = upstream
        self._name = name
        self._ending: _Ending | None = None
        self._scope: asyncio.Timeout | None = None
        self.end: TunnelEnd | None = None

    async def run(self) -> TunnelEnd:
        """Copy both ways until one side ends, then end the other side; call this once.

        A cancellation closes both sides with 1012 within about a second, and is raised again.
        """
        down = asyncio.create_task(
            self._copy_down(), name=f"websocket {self._name}: upstream to client"
        )
        try:
            try:
                if self._ending is None:
                    await self._interruptible(self._copy_up(), None)
            except asyncio.CancelledError:
                self._note(_ours(WebSocketEnd.SHUTDOWN, Close(1012)))
                await self._finish(down, _END_SECONDS)
                raise
            await self._finish(down, None)
        finally:
            if not down.done():
                down.cancel()
                await asyncio.wait((down,))
            self._upstream.abort()
        assert self.end is not None
        return self.end

    def close(self, code: int = 1001, reason: str = "") -> None:
        """End both sides with this code within about a second, for a drain that took too long.

        Args:
            code: Close code for both sides; must be one that may be sent.
            reason: Close reason for both sides, at most 123 bytes of UTF-8.
        """
        if self._ending is None:
            self._note(_ours(WebSocketEnd.DRAINED, Close(code, reason)))
            self._stop(0.0)
        else:
            self._stop(_END_SECONDS)

    # The two directions

    async def _copy_up(self) -> None:
        """Copy from client to upstream until the client ends."""
        receive, send = self._receive, self._upstream.send
        limit = self._upstream.max_message_bytes
        while True:
            message = await receive()
            if message["type"] != "websocket.receive":
                self._note(_client_ended(message))
                return
            data = message.get("text")
            if data is None:
                data = message.get("bytes") or b""
            if limit is not None and _size_over(data, limit):
                self._note(_ours(WebSocketEnd.MESSAGE_TOO_BIG, Close(1009, "message too big")))
                return
            await send(data)

    async def _copy_down(self) -> None:
        """Copy from upstream to client until the upstream ends, then interrupt the other copy."""
        recv, send = self._upstream.recv, self._send
        seconds = 0.0
        try:
            while (message := await recv()) is not None:
                if isinstance(message, str):
                    await send({"type": "websocket.send", "text": message})
                else:
                    await send({"type": "websocket.send", "bytes": message})
            self._note(_upstream_ended(self._upstream))
        except _CLIENT_LEFT:
            # ``receive`` gives the close code, after the messages that the client sent before.
            seconds = _END_SECONDS
        finally:
            self._stop(seconds)

    # The end

    async def _finish(self, down: asyncio.Task[None], seconds: float | None) -> None:
        """Close the WebSockets of upstream and client, and set ``end``.

        The close of the upstream is started first, because that does not wait.
        """
        if self._ending is None:
            # Either the copy to the client failed, which is raised here, or its ``send`` did.
            await down
            self._note(_Ending(WebSocketEnd.CLIENT_VANISHED, 1006))
        ending = self._ending
        assert ending is not None
        down.cancel()
        if ending.to_upstream is None:
            self._upstream.abort()
        else:
            self._upstream.start_close(ending.to_upstream)
        self.end = self._summary(ending)
        await asyncio.wait((down,))
        await self._interruptible(
            self._end_both(ending.to_client), ending.seconds if seconds is None else seconds
        )

    async def _end_both(self, to_client: Close | None) -> None:
        """Close the client after the messages that it has not read; wait for the upstream's end."""
        if to_client is not None:
            with contextlib.suppress(*_CLIENT_LEFT):
                await self._send(
                    {
                        "type": "websocket.close",
                        "code": to_client.code,
                        "reason": to_client.reason,
                    }
                )
        await self._upstream.wait_closed()

    def _note(self, ending: _Ending) -> None:
        """Store the first end of the tunnel; later ones are its consequences and ignored."""
        if self._ending is None:
            self._ending = ending

    def _stop(self, seconds: float) -> None:
        """Interrupt what the caller's task waits for, ``seconds`` from now."""
        scope = self._scope
        if scope is not None and not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time() + seconds)

    async def _interruptible(self, work: Coroutine[Any, Any, None], seconds: float | None) -> None:
        """Await ``work`` until it ends, ``_stop`` is called or ``seconds`` have passed.

        ``asyncio.timeout`` interrupts the task without hiding a
        cancellation from outside.
        """
        try:
            async with asyncio.timeout(seconds) as scope:
                self._scope = scope
                await work
        except TimeoutError:
            if not scope.expired():
                raise
        finally:
            self._scope = None

    def _summary(self, ending: _Ending) -> TunnelEnd:
        upstream = self._upstream
        return TunnelEnd(
            reason=ending.reason,
            code=ending.code,
            close_reason=ending.close_reason,
            error=upstream.error,
            upward_messages=upstream.sent_messages,
            upward_bytes=upstream.sent_bytes,
            downward_messages=upstream.received_messages,
            downward_bytes=upstream.received_bytes,
        )


def _ours(reason: WebSocketEnd, close: Close) -> _Ending:
    """Make an end that the proxy decided on: both sides get the same close frame in a second."""
    assert close.code is not None
    return _Ending(reason, close.code, close.reason, close, close, _END_SECONDS)


def _client_ended(message: Message) -> _Ending:
    """Make the end for a ``websocket.disconnect`` message."""
    code = int(message.get("code") or 1005)
    reason = message.get("reason") or ""
    framed = "reason" in message
    if code == 1012 and not framed:
        # uvicorn shuts down, and has sent 1012 to the client itself.
        return _Ending(WebSocketEnd.SHUTDOWN, code, to_upstream=Close(code), seconds=_END_SECONDS)
    close = close_upwards(code, reason, framed=framed)
    if close is None:
        return _Ending(WebSocketEnd.CLIENT_VANISHED, 1006)
    return _Ending(WebSocketEnd.CLIENT_CLOSED, code, reason, to_upstream=close)


def _upstream_ended(upstream: OpenWebSocket) -> _Ending:
    """Make the end for a WebSocket that the upstream has ended."""
    code, reason, error = upstream.close_code, upstream.close_reason, upstream.error
    if error is None:
        kind = WebSocketEnd.UPSTREAM_CLOSED
    elif isinstance(error, UpstreamTimeout):
        kind = WebSocketEnd.UPSTREAM_PING_TIMEOUT
    elif isinstance(error, UpstreamProtocolError):
        kind = _PROTOCOL_ENDS[code]
    else:
        kind = WebSocketEnd.UPSTREAM_VANISHED
    # The client must not get 1002 for a fault of the upstream; codes about the data are sent
    # to both sides.
    shown = 1006 if kind is WebSocketEnd.UPSTREAM_PROTOCOL_ERROR else code
    return _Ending(kind, code, reason, close_downwards(shown, reason), to_upstream=Close())


_PROTOCOL_ENDS: Final = {
    1002: WebSocketEnd.UPSTREAM_PROTOCOL_ERROR,
    1007: WebSocketEnd.INVALID_DATA,
    1009: WebSocketEnd.MESSAGE_TOO_BIG,
}


def _size_over(data: str | bytes, limit: int) -> bool:
    """Whether a message is over ``limit`` bytes; encodes text only if its length is close."""
    if len(data) > limit:
        return True
    return isinstance(data, str) and 4 * len(data) > limit and len(data.encode()) > limit
