"""Makes the errors for requests that get no destination."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi_proxy_di.errors import (
    Attempt,
    LimitExceeded,
    NoAvailableDestination,
    UpstreamClosed,
)
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool

__all__ = ["closed", "only_unavailable", "unavailable"]


def closed(name: str) -> UpstreamClosed:
    """Make the error for a use of an upstream that is closed."""
    return UpstreamClosed(f"upstream {name!r} is closed", upstream=name)


def unavailable(
    pool: Pool,
    attempts: Sequence[Attempt],
    retry_after: float,
    window_left: float,
    cooling_left: float | None = None,
) -> NoAvailableDestination:
    """Make the error for a pick without a destination.

    Args:
        pool: The pool of the pick.
        attempts: The earlier attempts of the exchange.
        retry_after: Seconds after which the client may try again.
        window_left: The same if only the window of ``max_requests`` is used up.
        cooling_left: The same if all destinations asked for time without requests, else ``None``.
    """
    kind: type[NoAvailableDestination] = NoAvailableDestination
    if not pool.candidates:
        reason = f"no destination of {pool.name} is available"
        if cooling_left is not None:
            reason = f"every destination of {pool.name} has asked for a pause by Retry-After"
            retry_after = max(1.0, cooling_left)
    elif all(one.full for tier in pool.tiers for one in tier):
        kind, reason = LimitExceeded, f"every destination of {pool.name} is at its limit"
        if all(one.requests_in_window >= one.window_limit for one in pool.candidates):
            retry_after = max(1.0, window_left)
    else:
        # A destination has room, but affinity does not allow it. The second branch of a hedged
        # request gets here as well; its error never reaches a client.
        reason = f"the destination of {pool.name} that the client belongs to is not available"
    error = kind(reason, upstream=pool.name, attempts=attempts)
    error.retry_after = retry_after
    return error


def only_unavailable(
    upstream: str,
    url: str,
    destination: Destination | None,
    attempts: Sequence[Attempt],
    retry_after: float,
    window_left: float,
    cooling_left: float | None,
) -> NoAvailableDestination:
    """Make the error of a request whose only destination cannot be used.

    Args:
        upstream: Name of the upstream.
        url: Address of the destination.
        destination: The destination, ``None`` if it has left the pool.
        attempts: The earlier attempts of the exchange.
        retry_after: Seconds after which the client may try again.
        window_left: The same if the window of its ``max_requests`` is used up.
        cooling_left: The same if it asked for time without requests, else ``None``.
    """
    kind: type[NoAvailableDestination] = NoAvailableDestination
    reason = f"the destination {url} of {upstream}, the only one for this request, is not available"
    if cooling_left is not None:
        retry_after = max(1.0, cooling_left)
    elif destination is not None and destination.full and not destination.draining:
        kind, reason = LimitExceeded, f"the destination {url} of {upstream} is at its limit"
        if destination.requests_in_window >= destination.window_limit:
            retry_after = max(1.0, window_left)
    error = kind(reason, upstream=upstream, attempts=attempts)
    error.retry_after = retry_after
    return error
