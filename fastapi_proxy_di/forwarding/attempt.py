"""One attempt: pick a destination, send an exchange's request there, wait for the head.

A selection has no side effects; the picker reports the destinations that it found full.
``retry_loop`` decides whether another attempt follows; ``outcomes`` counts the result.
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
"""How long a connection may have been idle for a request that must not be sent twice. Servers
close idle connections after some seconds, so a connection this fresh will hardly be closed."""


class Picker:
    """Picks destinations of one upstream.

    Args:
        policy: The policy, which chooses one of the candidates.
        select: The selection: ``balancing.selection.select``, or that of an affinity.
        supervisor: The supervisor of the pool.
        retry_after: Seconds of the Retry-After header when no destination is available.
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
        """Give a destination with room that has not been tried; report full destinations."""
        destination, full = self._select(self._policy, self._pool, key, tried)
        if full:
            self._supervisor.limits_reached(full)
        return destination

    def unavailable(self, attempts: Sequence[Attempt]) -> NoAvailableDestination:
        """Make the error for a pick without a destination; it carries the earlier attempts."""
        pool = self._pool
        kind: type[NoAvailableDestination] = NoAvailableDestination
        if not pool.candidates:
            reason = f"no destination of {pool.name} is available"
        elif all(one.full for tier in pool.tiers for one in tier):
            kind, reason = LimitExceeded, f"every destination of {pool.name} is at its limit"
        else:
            # Some destination has room, so affinity has refused the pick.
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
        transport: The transport to the destination.
        host: The Host header of the destination.
        base_path: The path that is put in front of every request's path.
    """

    transport: Transport
    host: tuple[bytes, bytes]
    base_path: bytes


def route_to(destination: Destination, transport: Transport) -> Route:
    """Return the route to ``destination`` over ``transport``."""
    address = destination.settings.address
    return Route(transport, (b"host", address.authority), address.base_path)


def request_to(exchange: Exchange, route: Route, idle_seconds: float) -> Request:
    """Make the transport's request for one destination.

    Args:
        exchange: The exchange, with the request to send.
        route: The route to the destination.
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
    """Send the request and wait for the final head of the response.

    Args:
        exchange: The exchange, with the request to send; stores the attempt once it is sent.
        route: The route to the destination.
        limits: The limits of the upstream.
        fresh: Whether to open a new connection even if an idle one can be used.

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
