"""One attempt: send an exchange's request to one destination, wait for the response's head.

Whether another attempt follows is the retry loop's affair, and what is learnt from this one
is ``outcomes``'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import LimitSettings
from fastapi_proxy_di.transport.protocol import Request, Transport, TransportExchange
from fastapi_proxy_di.wire.urls import join_target

__all__ = ["FRESH_SECONDS", "Route", "attempt", "request_to", "route_to"]

FRESH_SECONDS: Final = 1.0
"""How long a connection may have been idle for a request that must not be sent twice: an
upstream that closes idle connections does so after seconds, so a fresh one is not about to go."""


@dataclass(slots=True)
class Route:
    """The way to one destination, prepared when it becomes one.

    Attributes:
        transport: Its connections.
        host: Its Host header.
        base_path: In front of every path.
    """

    transport: Transport
    host: tuple[bytes, bytes]
    base_path: bytes


def route_to(destination: Destination, transport: Transport) -> Route:
    """Give the way to ``destination`` over ``transport``."""
    address = destination.settings.address
    return Route(transport, (b"host", address.authority), address.base_path)


def request_to(exchange: Exchange, route: Route, idle_seconds: float) -> Request:
    """Give the exchange's request for one destination.

    Args:
        exchange: Has the request.
        route: Where to.
        idle_seconds: How long a connection may have been idle for a request that may be sent
            twice.
    """
    return Request(
        exchange.method,
        join_target(route.base_path, exchange.target, exchange.query),
        [route.host if exchange.host is None else (b"host", exchange.host), *exchange.headers],
        idle_seconds if exchange.repeatable else FRESH_SECONDS,
        exchange.length,
        exchange.chunked,
        exchange.upgrade,
    )


async def attempt(
    exchange: Exchange, route: Route, limits: LimitSettings, *, fresh: bool
) -> TransportExchange:
    """Send the request and wait for the final head.

    Args:
        exchange: Has the request, and the attempt as soon as it is sent.
        route: Where to.
        limits: Of the upstream.
        fresh: Whether it takes a new connection even if an idle one is at hand.

    Raises:
        ProxyError: There is no response.
    """
    request = request_to(exchange, route, limits.idle_seconds)
    body = exchange.body
    first, more = b"", False
    if body is not None:
        first = body.at_hand
        more = not body.ended or len(first) < len(body.first)
    sent = None if fresh else route.transport.reuse(request, first, more=more)
    if sent is None:
        sent = await exchange.watcher.run(
            exchange, route.transport.start(request, first, more=more), "dial"
        )
    exchange.attach(sent)
    if more and body is not None:
        exchange.watcher.watch_client(exchange)
        await body.attach(sent, len(first), limits.expect_continue)
    await sent.head()
    return sent
