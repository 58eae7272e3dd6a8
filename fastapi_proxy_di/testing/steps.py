"""The steps of a stand-in: responses to a request or handshake, and failures of a connection.

Each step plays one exchange in ASGI messages.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from starlette.types import Message, Receive, Scope, Send

from fastapi_proxy_di.errors import Failure, ProxyError, UpstreamConnectError, UpstreamDisconnected
from fastapi_proxy_di.testing.received import Received

__all__ = [
    "Step",
    "Turn",
    "accept",
    "close",
    "echo",
    "refuse",
    "reply",
    "reset",
    "stall",
    "too_many_requests",
    "truncate",
]

_DISCONNECTS: Final = frozenset({"http.disconnect", "websocket.disconnect"})


@dataclass(slots=True)
class Turn:
    """One exchange, as the stand-in sees it.

    Attributes:
        scope: ASGI scope of the request or handshake.
        receive: Gives the ASGI messages of the gateway.
        send: Sends ASGI messages to the gateway.
        received: The record of the request.
        fail: Ends the exchange with an error, as a broken connection would.
        read_whole: Whether the request has been read to its end.
    """

    scope: Scope
    receive: Receive
    send: Send
    received: Received
    fail: Callable[[ProxyError], None]
    read_whole: bool = False

    async def answer(self, message: Message) -> None:
        """Send an HTTP response message; for a handshake, as the denial response."""
        if self.scope["type"] == "websocket":
            message = {**message, "type": f"websocket.{message['type']}"}
        await self.send(message)

    async def read(self) -> None:
        """Read the request to its end; then the record has the whole body."""
        while not self.read_whole and self.scope["type"] == "http":
            self.read_whole = not (await self.receive()).get("more_body", False)

    async def gone(self) -> None:
        """Wait until the gateway has closed the exchange."""
        while (await self.receive())["type"] not in _DISCONNECTS:
            pass


class Step(Protocol):
    """Responds to one request. The functions of this module make steps."""

    async def play(self, turn: Turn) -> None:
        """Respond to the request, or break the connection.

        Args:
            turn: The exchange.
        """


@dataclass(frozen=True, slots=True)
class _Reply:
    content: bytes
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    delay: float

    async def play(self, turn: Turn) -> None:
        await turn.read()
        if self.delay:
            await asyncio.sleep(self.delay)
        await turn.answer(_start(self.status, self.headers))
        await turn.answer({"type": "http.response.body", "body": self.content})


@dataclass(frozen=True, slots=True)
class Refusal:
    """The step of ``refuse``. In a script, ``Place.begin`` raises the error on connecting."""

    async def play(self, turn: Turn) -> None:
        # A function runs after connecting, when a refusal is no longer possible.
        await reset().play(turn)


@dataclass(frozen=True, slots=True)
class _Stall:
    async def play(self, turn: Turn) -> None:
        await turn.gone()


@dataclass(frozen=True, slots=True)
class _Break:
    """The step that breaks off after ``content``, or before the head if that is ``None``."""

    content: bytes | None
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    text: str

    async def play(self, turn: Turn) -> None:
        await turn.read()
        if self.content is not None:
            await turn.answer(_start(self.status, self.headers))
            await turn.answer(
                {"type": "http.response.body", "body": self.content, "more_body": True}
            )
        failure = Failure.RESPONSE_HEAD if self.content is None else Failure.RESPONSE_BODY
        turn.fail(UpstreamDisconnected(self.text, failure=failure))


@dataclass(frozen=True, slots=True)
class _Accept:
    messages: tuple[str | bytes, ...]
    subprotocol: str | None
    echo: bool
    code: int | None
    reason: str
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())

    async def play(self, turn: Turn) -> None:
        await turn.send(
            {
                "type": "websocket.accept",
                "subprotocol": self.subprotocol,
                "headers": list(self.headers),
            }
        )
        for message in self.messages:
            kind = "text" if isinstance(message, str) else "bytes"
            await turn.send({"type": "websocket.send", kind: message})
        if self.echo:
            await self._echo(turn)
        elif self.code is None:
            await turn.gone()
        else:
            await turn.send({"type": "websocket.close", "code": self.code, "reason": self.reason})

    async def _echo(self, turn: Turn) -> None:
        while (message := await turn.receive())["type"] not in _DISCONNECTS:
            if message["type"] == "websocket.receive":
                await turn.send({**message, "type": "websocket.send"})


def refused() -> ProxyError:
    """Give the error of a refused connection."""
    return UpstreamConnectError("connection refused by the stand-in")


def reply(
    content: Any = b"",
    status: int = 200,
    *,
    headers: Mapping[str, str] | None = None,
    delay: float = 0.0,
) -> Step:
    """Send a response.

    Args:
        content: Bytes, text, or data for JSON. Sets content-type for the latter two.
        status: Status code.
        headers: Further headers.
        delay: Seconds until the response begins.
    """
    body, content_type = content_of(content)
    raw = _raw(headers)
    names = {name for name, _ in raw}
    if content_type is not None and b"content-type" not in names:
        raw.append((b"content-type", content_type))
    if b"content-length" not in names and status not in (204, 304):
        raw.append((b"content-length", b"%d" % len(body)))
    return _Reply(body, status, tuple(raw), delay)


def refuse() -> Step:
    """Refuse the connection; the gateway may retry any method on another destination.

    If a function gives this step, which is after connecting, it acts as ``reset()``.
    """
    return Refusal()


def stall() -> Step:
    """Take the request and never respond; a timeout of the settings ends the exchange."""
    return _Stall()


def reset(
    after: bytes | None = None, status: int = 200, *, headers: Mapping[str, str] | None = None
) -> Step:
    """Break the connection off.

    Args:
        after: The part of the body to send first; ``None`` breaks before the head.
        status: Status of the head.
        headers: Headers of the head.
    """
    return _Break(after, status, tuple(_raw(headers)), "reset by the stand-in")


def truncate(content: bytes, status: int = 200) -> Step:
    """Close the connection within a chunk of the body.

    Args:
        content: The part of the chunk to send.
        status: Status of the head.
    """
    raw = ((b"content-type", b"application/octet-stream"),)
    return _Break(content, status, raw, "closed within a chunk by the stand-in")


def too_many_requests(retry_after: float = 1) -> Step:
    """Send a 429 with ``Retry-After``.

    Args:
        retry_after: Seconds, rounded to a whole number.
    """
    return reply(b"", 429, headers={"retry-after": f"{retry_after:.0f}"})


def accept(
    *messages: str | bytes,
    subprotocol: str | None = None,
    headers: Mapping[str, str] | None = None,
    code: int | None = None,
    reason: str = "",
) -> Step:
    """Accept a WebSocket, send messages, then close it or wait for the client to.

    Args:
        *messages: Messages to send at once.
        subprotocol: The chosen subprotocol.
        headers: Headers of the handshake response.
        code: Close code; ``None`` leaves the close to the client.
        reason: Close reason.
    """
    return _Accept(messages, subprotocol, False, code, reason, tuple(_raw(headers)))


def close(code: int = 1000, reason: str = "") -> Step:
    """Accept a WebSocket and close it at once, for instance with 4001.

    Args:
        code: Close code.
        reason: Close reason.
    """
    return accept(code=code, reason=reason)


def echo(*, subprotocol: str | None = None) -> Step:
    """Accept a WebSocket and send each message back.

    Args:
        subprotocol: The chosen subprotocol.
    """
    return _Accept((), subprotocol, True, None, "")


def content_of(content: Any) -> tuple[bytes, bytes | None]:
    """Encode content; give the bytes, and the content type of text and JSON."""
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content), None
    if isinstance(content, str):
        return content.encode("utf-8"), b"text/plain; charset=utf-8"
    return jsonlib.dumps(content).encode("utf-8"), b"application/json"


def _raw(headers: Mapping[str, str] | None) -> list[tuple[bytes, bytes]]:
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in (headers or {}).items()
    ]


def _start(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


PlaysApp = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI app."""
