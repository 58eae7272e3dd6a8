"""Watches the pace of event streams: ends one without events, and sends heartbeats in pauses.

Both are done by the task that sends the body, in the place where it waits for the next piece. So
a heartbeat never comes between two parts of a piece or while a send is under way, and it counts
for no timeout: those look at what the destination sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from starlette.types import Receive, Scope, Send

from fastapi_proxy_di.errors import Failure, UpstreamTimeout
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.response import BodySource, EndExchange, UpstreamResponse
from fastapi_proxy_di.settings import StreamSettings
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.content_coding import DecodedCopy, decoded_copy
from fastapi_proxy_di.wire.event_stream import BYTE_ORDER_MARK, EventBorders, is_event_stream
from fastapi_proxy_di.wire.headers import list_members

__all__ = ["HEARTBEAT", "Pace", "PacedResponse", "pace_of"]

HEARTBEAT: Final = b": ping\n\n"
"""A comment, which clients ignore, and the end of an event without data, which is none."""


class Pace:
    """How the event streams of an upstream are watched.

    Args:
        idle: Seconds without an event with data after which a stream is ended, ``None`` for any.
        heartbeat: Seconds without a byte after which a heartbeat is sent, ``None`` for never.
    """

    def __init__(self, idle: float | None, heartbeat: float | None) -> None:
        self._idle: Final = idle
        self._heartbeat: Final = heartbeat

    def of(
        self,
        exchange: Exchange,
        headers: Sequence[tuple[bytes, bytes]],
        source: BodySource | None = None,
    ) -> BodySource:
        """Give the body of the response, watched if it is an event stream.

        Args:
            exchange: The exchange, with its response.
            headers: The headers that the client gets.
            source: Where the body is read, ``None`` for the response of the exchange.
        """
        response = exchange.response
        source = response if source is None else source
        if response.status != 200 or not is_event_stream(response.headers):
            return source
        copy = decoded_copy(response.headers)
        heartbeat = self._heartbeat if _may_be_added_to([*response.headers, *headers]) else None
        if copy is None or (self._idle is None and heartbeat is None):
            return source
        return _PacedBody(source, copy, self._idle, heartbeat)


def _may_be_added_to(headers: Headers) -> bool:
    """Whether a body with these headers has neither a length nor a coding."""
    if any(name.lower() == b"content-length" for name, _ in headers):
        return False
    return set(list_members(headers, b"content-encoding")) <= {b"identity"}


def pace_of(streams: StreamSettings, *, heartbeat: bool = True) -> Pace | None:
    """Give the pace of the settings, ``None`` if they do not ask for any.

    Args:
        streams: The settings.
        heartbeat: Whether the client may need heartbeats, as the app itself does not.
    """
    beats = streams.heartbeat if heartbeat else None
    return None if streams.idle is None and beats is None else Pace(streams.idle, beats)


class PacedResponse(UpstreamResponse):
    """An `UpstreamResponse` that is watched if it is an event stream; see there for the rest.

    Args:
        pace: How streams are watched.
        exchange: The exchange, with its response.
        headers: The headers to send.
        trailers: Whether trailers are forwarded.
        end: Called once at the end.
    """

    __slots__ = ("_pace",)

    def __init__(
        self, pace: Pace, exchange: Exchange, headers: Headers, *, trailers: bool, end: EndExchange
    ) -> None:
        super().__init__(exchange, headers, trailers=trailers, end=end)
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Only now, because an endpoint may have changed the headers.
        if self._end is not None:
            self._response = self._pace.of(self._exchange, self.headers, self._response)
        await super().__call__(scope, receive, send)


class _PacedBody:
    """The body of one event stream, with heartbeats in its pauses.

    Attributes:
        complete: Whether what ``read`` gave last was the end of the body.
    """

    def __init__(
        self,
        response: BodySource,
        copy: DecodedCopy,
        idle: float | None,
        heartbeat: float | None,
    ) -> None:
        self.complete: bool = False
        self._response: Final = response
        self._copy: Final = copy
        self._borders: Final = EventBorders()
        self._idle: Final = idle
        self._heartbeat: Final = heartbeat
        self._loop: Final = asyncio.get_running_loop()
        self._last_event = self._loop.time()
        self._begun = False
        self._mark: bytes | None = None  # of the byte order mark, once a heartbeat came before it

    @property
    def trailers(self) -> Headers:
        """The trailers, after the end of the body."""
        return self._response.trailers

    async def read(self) -> bytes:
        """Give the next piece of the body, or a heartbeat; ``b""`` at its end.

        Raises:
            ProxyError: The response broke off, or had no event with data for too long.
        """
        response = self._response
        beat_at = None
        if self._heartbeat is not None and self._borders.at_border:
            beat_at = self._loop.time() + self._heartbeat
        idle_at = None
        if self._idle is not None and not self._copy.failed:
            idle_at = self._last_event + self._idle
        times = [at for at in (beat_at, idle_at) if at is not None]
        try:
            async with asyncio.timeout_at(min(times, default=None)):
                piece = await response.read()
        except TimeoutError:
            if idle_at is None or idle_at != min(times):
                if not self._begun:
                    self._mark = b""
                return HEARTBEAT
            piece = await self._at_hand()
        self._begun = True
        for text in self._copy.feed(piece):
            if self._borders.feed(text):
                self._last_event = self._loop.time()
        self.complete = response.complete
        return piece if self._mark is None else self._without_mark(piece)

    async def _at_hand(self) -> bytes:
        """Give the piece that arrived as the idle time ended.

        A loop that was blocked for a while finds both at once, and then the piece counts.

        Raises:
            UpstreamTimeout: There is none.
        """
        try:
            async with asyncio.timeout(0):
                return await self._response.read()
        except TimeoutError:
            raise UpstreamTimeout(
                f"no event with data for streams.idle={self._idle:g} s", failure=Failure.STREAM_IDLE
            ) from None

    def _without_mark(self, piece: bytes) -> bytes:
        """Remove a byte order mark, which means nothing behind a heartbeat."""
        assert self._mark is not None
        piece = self._mark + piece
        if len(piece) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(piece):
            self._mark = piece
            return piece if self.complete else b""
        self._mark = None
        return piece.removeprefix(BYTE_ORDER_MARK)
