"""A tap that keeps what it is told, and gateways with a tap in front of scripted engines."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi_proxy_di import (
    SseEvent,
    Tap,
    TapExchange,
)
from tests.support.gateways import Gateway, gateway, until
from tests.support.http_client import RawResponse, fetch
from tests.support.origins import Script, ScriptedOrigin, always

__all__ = ["SEEN", "TWO", "Log", "Logs", "plain", "tapped", "through"]

TWO: Final = (b'data: {"n": 1}\n\n', b"event: last\nid: 7\r\ndata: a\r\ndata: b\r\n\r\n")
SEEN: Final = [SseEvent('{"n": 1}'), SseEvent("a\nb", "last", "7")]


class Log(Tap):
    """Keeps all that it is told."""

    def __init__(self, exchange: TapExchange) -> None:
        self.exchange: Final = exchange
        self.events: Final[list[SseEvent]] = []
        self.answers: Final[list[Any]] = []
        self.ends: Final[list[str]] = []

    def event(self, event: SseEvent) -> None:
        """Keep an event."""
        self.events.append(event)

    def answer(self, body: Any) -> None:
        """Keep a JSON value."""
        self.answers.append(body)

    def end(self, outcome: str) -> None:
        """Keep an end."""
        self.ends.append(outcome)


class Logs:
    """Makes a log for each exchange.

    Attributes:
        all: The logs.
    """

    def __init__(self) -> None:
        self.all: Final[list[Log]] = []

    def __call__(self, exchange: TapExchange) -> Log:
        self.all.append(Log(exchange))
        return self.all[-1]

    @property
    def last(self) -> Log:
        """The log of the last exchange."""
        return self.all[-1]


@contextlib.asynccontextmanager
async def tapped(script: Script, tap: Any, **settings: Any) -> AsyncIterator[Gateway]:
    """Run a gateway with a tap, in front of a scripted engine."""
    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, router={"tap": tap}, **settings) as gate,
    ):
        yield gate


async def through(script: Script, tap: Any, method: str = "GET", **settings: Any) -> RawResponse:
    """Send a request through a gateway with a tap to a scripted engine."""
    async with tapped(script, tap, **settings) as gate:
        reply = await fetch(gate.address, method, "/billing/x?y=1")
        await until(lambda: gate.in_flight == 0)
    return reply


def plain(body: bytes, kind: bytes = b"application/json", *headers: bytes) -> Script:
    """Make a script that sends a body of known length."""
    head = [b"HTTP/1.1 200 X", b"Content-Type: " + kind, *headers]
    head.append(b"Content-Length: %d" % len(body))
    return always(b"\r\n".join(head) + b"\r\n\r\n" + body)
