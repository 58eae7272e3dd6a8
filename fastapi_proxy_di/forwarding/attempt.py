"""One attempt: pick a destination, send an exchange's request there, wait for the head.

A selection has no side effects; the picker reports the limits that it met. ``retry_loop``
decides whether another attempt follows; ``outcomes`` counts the result.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.balancing.selection import Selection
from fastapi_proxy_di.errors import Attempt, LimitExceeded, NoAvailableDestination
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import LimitSettings
from fastapi_proxy_di.supervision.supervisor import Supervisor
from fastapi_proxy_di.transport.protocol import Request, Transport, TransportExchange
from fastapi_proxy_di.wire.targets import join_target

__all__ = ["FRESH_SECONDS", "Picker", "Route", "attempt", "request_to", "route_to"]

FRESH_SECONDS: Final = 1.0
"""How long a connection may have been idle for a request that must not be sent twice: an
upstream that closes idle connections does so after seconds, so a fresh one is not about to go."""


class Picker:
    """Picks destinations of one upstream.

    Args:
        policy: Chooses among the candidates.
        select: Selects a destination with policy and pool, or with affinity as well.
        supervisor: Has the pool.
        retry_after: Seconds that clients get as Retry-After when nothing is available.
    """

    def __init__(
        self,
        policy: BalancingPolicy,
        select: Selection,
        supervisor: Supervisor,
        retry_after: float,
    ) -> None:
        self._policy: Final = policy
        self._select: Final = select
        self._supervisor: Final = supervisor
        self._pool: Final = supervisor.pool
        self._retry_after: Final = retry_after

    def pick(
        self, key: PickRequest | None, tried: Collection[Destination] = ()
    ) -> Destination | None:
        """Give a destination with room that has not been tried; report those that are full."""
        destination, full = self._select(self._policy, self._pool, key, tried)
        if full:
            self._supervisor.limits_reached(full)
        return destination

    def unavailable(self, attempts: Sequence[Attempt]) -> NoAvailableDestination:
        """Say why there is nothing to pick, and what was tried before."""
        pool = self._pool
        kind: type[NoAvailableDestination] = NoAvailableDestination
        if not pool.candidates:
            reason = f"no destination of {pool.name} is available"
        elif all(one.full for tier in pool.tiers for one in tier):
            kind, reason = LimitExceeded, f"every destination of {pool.name} is at its limit"
        else:
            # With room somewhere only affinity gives none.
            reason = f"the destination of {pool.name} that the client belongs to is not available"
        error = kind(reason, upstream=pool.name, attempts=attempts)
        error.retry_after = self._retry_after
        if kind is LimitExceeded and all(
            one.requests_in_window >= one.window_limit for one in pool.candidates
        ):
            error.retry_after = max(1.0, self._supervisor.window_left)
        return error


@dataclass(slots=True)
class Route:
    """Transport, Host header and base path of one destination, made once.

    Attributes:
        transport: Its connections.
        host: Its Host header.
        base_path: In front of every path.
    """

    transport: Transport
    host: tuple[bytes, bytes]
    base_path: bytes


def route_to(destination: Destination, transport: Transport) -> Route:
    """Return the route to ``destination`` over ``transport``."""
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
