"""Holds the head of an event stream until its first event counts, so that it may be retried.

A server of a language model responds with 200 at once and may then stall, break off or report an
error. While nothing has been sent to the client, another destination may still serve the request.
The retry loop calls `FirstEvent.failed` after the head of each response with status 200. What was
read is given back to the response, so that the client gets every byte as it came.

Only a stream that can be read is held: a response to GET or POST, not encoded or with a coding
that can be decoded.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from fastapi_proxy_di.errors import Failure, ProxyError, Side, UpstreamTimeout
from fastapi_proxy_di.forwarding.event_rules import EventRule, event_rule
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.transport.protocol import TransportExchange
from fastapi_proxy_di.wire.content_coding import DecodedCopy, decoded_copy
from fastapi_proxy_di.wire.event_stream import EventScanner, SseEvent, is_event_stream

__all__ = ["HELD_BYTES", "HELD_EVENTS", "FirstEvent", "first_event_of"]

HELD_BYTES: Final = 65536
"""Bytes of a stream from which on it is no longer held, whatever its events are."""

HELD_EVENTS: Final = 64
"""Events of a stream from which on it is no longer held."""

_MOST_DECODED_BYTES: Final = 1 << 20
"""Decoded bytes of one piece that are read; a piece that decodes to more is no event stream."""

_METHODS: Final = frozenset({b"GET", b"POST"})

_logger = logging.getLogger("fastapi_proxy_di.streams")


def first_event_of(settings: UpstreamSettings) -> FirstEvent | None:
    """Give what holds the streams of an upstream, ``None`` if none are held.

    Raises:
        ValueError: ``streams.first_event_when`` cannot be imported, or is no rule.
    """
    streams = settings.streams
    if streams.first_event is None:
        return None
    rule = event_rule(streams.first_event_when)
    return FirstEvent(settings.name, streams.first_event, rule, retry=streams.retry)


class FirstEvent:
    """Holds the streams of one upstream.

    Args:
        name: Name of the upstream.
        seconds: Seconds from the head to the first event.
        rule: Says which event counts, and which one means failure.
        retry: Whether a ``POST`` may be sent again, too.
    """

    def __init__(self, name: str, seconds: float, rule: EventRule, *, retry: bool) -> None:
        self._name: Final = name
        self._seconds: Final = seconds
        self._rule: Final = rule
        self._retry: Final = retry
        self._rule_failed = False

    def repeatable(self, exchange: Exchange) -> bool:
        """Whether the request may be sent again if its stream fails before the first event."""
        return exchange.repeatable or (self._retry and exchange.method == b"POST")

    async def failed(self, exchange: Exchange) -> bool:
        """Wait for the first event of the response, if it is a stream.

        Returns:
            Whether an event means that the request failed.

        Raises:
            ProxyError: The stream was silent for too long, or broke off.
        """
        response = exchange.response
        if exchange.method not in _METHODS or not is_event_stream(response.headers):
            return False
        copy = decoded_copy(response.headers)
        return copy is not None and await self._hold(exchange, response, copy)

    async def _hold(
        self, exchange: Exchange, response: TransportExchange, copy: DecodedCopy
    ) -> bool:
        beginning = _Beginning(copy, self._judged)
        try:
            await self._read(response, beginning)
        except ProxyError as error:
            if exchange.error is not None or error.failure.side is not Side.DESTINATION:
                raise
            raise _before_first_event(error) from error
        if not beginning.ended:
            raise UpstreamTimeout(
                f"no event of the stream within streams.first_event={self._seconds:g} s",
                failure=Failure.FIRST_EVENT_TIMEOUT,
            )
        response.unread(b"".join(beginning.pieces))
        return beginning.verdict is False

    async def _read(self, response: TransportExchange, beginning: _Beginning) -> None:
        """Read the beginning of the stream, as far as it comes in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                while not beginning.ended:
                    beginning.add(await response.read(), complete=response.complete)
            return
        # A loop that was blocked for a while finds an event and the end of its time at once.
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                beginning.add(await response.read(), complete=response.complete)

    def _judged(self, event: SseEvent) -> bool | None:
        try:
            return self._rule(event)
        except Exception:
            if not self._rule_failed:
                self._rule_failed = True
                _logger.exception(
                    "%s: streams.first_event_when raised; such events count as the first",
                    self._name,
                )
            return True


class _Beginning:
    """The beginning of a stream, up to the first event that counts or means failure.

    Args:
        copy: The decoded copy of the stream.
        rule: Says which event counts, and which one means failure.

    Attributes:
        pieces: What was read, as it came.
        verdict: What the rule said of the last event that was judged.
        ended: Whether the stream is no longer held.
    """

    def __init__(self, copy: DecodedCopy, rule: EventRule) -> None:
        self.pieces: Final[list[bytes]] = []
        self.verdict: bool | None = None
        self.ended: bool = False
        self._copy: Final = copy
        self._rule: Final = rule
        self._scanner: Final = EventScanner()
        self._size = 0
        self._events = 0

    def add(self, piece: bytes, *, complete: bool) -> None:
        """Add the next bytes, and judge the events that end in them.

        Args:
            piece: The bytes.
            complete: Whether the stream ends with them; without any event it is passed on.
        """
        self.pieces.append(piece)
        self._size += len(piece)
        judged = self._judge(piece)
        self.ended = judged or complete or self._copy.failed or self._size >= HELD_BYTES

    def _judge(self, piece: bytes) -> bool:
        decoded = 0
        for text in self._copy.feed(piece):
            for event in self._scanner.feed(text):
                self._events += 1
                self.verdict = self._rule(event)
                if self.verdict is not None or self._events >= HELD_EVENTS:
                    return True
            decoded += len(text)
            if decoded >= _MOST_DECODED_BYTES:
                return True
        return False


def _before_first_event(error: ProxyError) -> ProxyError:
    """Make the error of a stream that failed while it was held, of the same class."""
    timed_out = isinstance(error, UpstreamTimeout)
    failure = Failure.FIRST_EVENT_TIMEOUT if timed_out else Failure.FIRST_EVENT
    held = type(error)(f"before the first event: {error}", failure=failure)
    held.counts = error.counts
    return held
