"""An exchange without a socket: tests feed it bytes, and see its calls on the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from fastapi_proxy_di.transport.http1.connection import Http1Connection
from fastapi_proxy_di.transport.http1.exchange import Http1Exchange
from fastapi_proxy_di.transport.http1.parser import ResponseParser
from fastapi_proxy_di.transport.protocol import Headers

__all__ = ["Outcome", "StandIn", "exchange_over", "response_to"]


class StandIn:
    """Replaces the connection of an exchange, and records its calls.

    Attributes:
        end: ``released`` or ``aborted``, once the exchange has called one of them.
    """

    def __init__(self) -> None:
        self.end: str | None = None
        self.loop = asyncio.get_running_loop()
        self.written: list[bytes] = []
        self.read_paused = False
        self.write_paused = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def release(self) -> None:
        assert self.end is None
        self.end = "released"

    def abort(self) -> None:
        assert self.end is None
        self.end = "aborted"

    def pause_reading(self) -> None:
        self.read_paused = True

    def resume_reading(self) -> None:
        self.read_paused = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an exchange: response or error, and whether the connection is reused."""

    status: int
    headers: Headers
    body: bytes
    trailers: Headers
    error: BaseException | None
    reusable: bool


def exchange_over(
    peer: StandIn,
    *,
    method: bytes = b"GET",
    upgrade: bool = False,
    header_limit: int = 65536,
    parser: ResponseParser | None = None,
) -> Http1Exchange:
    """Make an exchange whose request has been sent."""
    return Http1Exchange(
        cast(Http1Connection, peer),
        bodyless=method == b"HEAD",
        upgrade=upgrade,
        header_limit=header_limit,
        reused=False,
        now=0.0,
        parser=parser or ResponseParser(),
    )


async def response_to(
    pieces: Iterable[bytes],
    *,
    method: bytes = b"GET",
    upgrade: bool = False,
    header_limit: int = 65536,
    eof: bool = False,
    parser: ResponseParser | None = None,
) -> Outcome:
    """Feed an exchange the pieces of a response, then read it as the forwarder does."""
    peer = StandIn()
    exchange = exchange_over(
        peer, method=method, upgrade=upgrade, header_limit=header_limit, parser=parser
    )
    for piece in pieces:
        if peer.end is None:
            exchange.feed(memoryview(piece), 1.0)
    if eof and peer.end is None:
        exchange.ended(None)
    body = b""
    error: BaseException | None = None
    try:
        async with asyncio.timeout(0):  # a response that is incomplete by now stays so
            await exchange.head()
            while exchange.status != 101 and (piece := await exchange.read()):
                body += piece
    except Exception as raised:
        error = raised
    exchange.close()
    assert peer.end is not None
    return Outcome(
        exchange.status,
        exchange.headers,
        body,
        exchange.trailers,
        error,
        peer.end == "released",
    )
