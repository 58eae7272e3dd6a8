"""Shows a response to its tap while it passes to the client, byte for byte.

An encoded body passes as it is, and the tap reads a decoded copy. A body that cannot be read
passes without its tap, and is counted, with one of the reasons below.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import Final, Protocol

from starlette.types import Receive, Scope, Send

from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.pace import Pace
from fastapi_proxy_di.forwarding.response import BodySource, EndExchange, UpstreamResponse
from fastapi_proxy_di.forwarding.taps import OpenTap, Tapping
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.content_coding import DecodedCopy, decoded_copy
from fastapi_proxy_di.wire.event_stream import EventScanner, is_event_stream
from fastapi_proxy_di.wire.media_type import is_json

__all__ = ["ANSWER_BYTES", "CODING", "JSON", "SIZE", "TappedResponse"]

ANSWER_BYTES: Final = 1 << 20
"""Decoded bytes of a JSON body above which it is not read."""

CODING: Final = "coding"
"""The coding is unknown here, or the body is not encoded as its headers say."""

SIZE: Final = "size"
"""A JSON body above `ANSWER_BYTES`, or a stream with a piece above `_PIECE_BYTES`."""

JSON: Final = "json"
"""A body that is no JSON, unlike its headers say."""

_PIECE_BYTES: Final = 4 << 20
"""Decoded bytes of one piece above which a stream is not read further, because it decodes to far
more than a stream of events does, and takes the time of other requests."""

_PARTIAL: Final = 206


class TappedResponse(UpstreamResponse):
    """An `UpstreamResponse` with a tap; see there for the rest.

    The tap is made when the response is sent. So a response that is dropped instead, because
    another upstream responds say, has none.

    Args:
        tapping: Makes the tap.
        upstream: Name of the upstream.
        pace: How streams are watched, ``None`` for not.
        exchange: The exchange, with its response.
        headers: The headers to send.
        trailers: Whether trailers are forwarded.
        end: Called once at the end.
    """

    __slots__ = ("_pace", "_tap", "_tapping", "_upstream")

    def __init__(
        self,
        tapping: Tapping,
        upstream: str,
        pace: Pace | None,
        exchange: Exchange,
        headers: Headers,
        *,
        trailers: bool,
        end: EndExchange,
    ) -> None:
        super().__init__(exchange, headers, trailers=trailers, end=end)
        self._tapping = tapping
        self._upstream = upstream
        self._pace = pace
        self._tap: OpenTap | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._exchange
        if self._end is not None:
            if self._pace is not None:
                self._response = self._pace.of(exchange, self.headers, self._response)
            self._tap = self._tapping.open(self._upstream, exchange)
            reader = None if self._tap is None else _reader(self._tap, exchange)
            if reader is not None:
                self._response = _TappedBody(self._response, reader, exchange)
        await super().__call__(scope, receive, send)

    def _finish(self, failure: BaseException | None) -> Awaitable[None] | None:
        tap, self._tap = self._tap, None
        if tap is not None:
            tap.end(failure)
        return super()._finish(failure)


class _Reader(Protocol):
    """Reads the decoded copy of a body for a tap."""

    def feed(self, text: bytes) -> str | None:
        """Take the next bytes; gives the reason why nothing more is read, if so."""

    def finish(self) -> str | None:
        """Take the end of the body; gives the reason why it could not be read, if so."""

    @property
    def wants_more(self) -> bool:
        """Whether the tap still takes something."""


class _TappedBody:
    """The body of a response, shown to its reader.

    Attributes:
        complete: Whether what ``read`` gave last was the end of the body.
    """

    def __init__(
        self, source: BodySource, reader: tuple[_Reader, DecodedCopy], exchange: Exchange
    ) -> None:
        self.complete: bool = False
        self._source: Final = source
        self._reader: _Reader | None = reader[0]
        self._copy: Final = reader[1]
        self._exchange: Final = exchange

    @property
    def trailers(self) -> Headers:
        """The trailers, after the end of the body."""
        return self._source.trailers

    async def read(self) -> bytes:
        """Give the next piece of the body; ``b""`` at its end.

        Raises:
            ProxyError: The response broke off.
        """
        piece = await self._source.read()
        self.complete = self._source.complete
        if self._reader is not None:
            self._show(self._reader, piece)
        return piece

    def _show(self, reader: _Reader, piece: bytes) -> None:
        reason, decoded = None, 0
        for text in self._copy.feed(piece):
            decoded += len(text)
            reason = reader.feed(text) if decoded <= _PIECE_BYTES else SIZE
            if reason is not None or not reader.wants_more:
                break
        if reason is None and self._copy.failed:
            reason = CODING
        if reason is None and self.complete:
            reason = reader.finish()
        if reason is not None:
            self._exchange.metrics.unread(reason)
        if reason is not None or not reader.wants_more:
            self._reader = None


class _EventReader:
    """Gives a tap the events of a stream."""

    def __init__(self, tap: OpenTap) -> None:
        self._tap: Final = tap
        self._scanner: Final = EventScanner()

    @property
    def wants_more(self) -> bool:
        return self._tap.event is not None

    def feed(self, text: bytes) -> str | None:
        tap = self._tap
        for event in self._scanner.feed(text):
            if tap.event is None:
                break
            tap.call(tap.event, event)
        return None

    def finish(self) -> str | None:
        return None


class _AnswerReader:
    """Gives a tap a JSON body at its end."""

    def __init__(self, tap: OpenTap) -> None:
        self._tap: Final = tap
        self._pieces: Final[list[bytes]] = []
        self._size = 0

    @property
    def wants_more(self) -> bool:
        return self._tap.answer is not None

    def feed(self, text: bytes) -> str | None:
        self._size += len(text)
        if self._size > ANSWER_BYTES:
            return SIZE
        self._pieces.append(text)
        return None

    def finish(self) -> str | None:
        if not self._size or self._tap.answer is None:
            return None  # a response to HEAD, say
        try:
            body = json.loads(b"".join(self._pieces))
        except (ValueError, RecursionError):
            return JSON
        self._tap.call(self._tap.answer, body)
        return None


def _reader(tap: OpenTap, exchange: Exchange) -> tuple[_Reader, DecodedCopy] | None:
    """Give what reads a response for its tap, ``None`` if there is nothing to read."""
    response = exchange.response
    reader: _Reader
    if is_event_stream(response.headers):
        reader = _EventReader(tap)
    elif is_json(response.headers) and response.status != _PARTIAL:
        reader = _AnswerReader(tap)
    else:
        return None
    if not reader.wants_more:
        return None
    copy = decoded_copy(response.headers)
    if copy is None:
        exchange.metrics.unread(CODING)
        return None
    return reader, copy
