"""Picks the destination of an attempt, and says why there is none.

A selection has no side effects; limits that it met are reported here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.balancing.selection import Selection
from fastapi_proxy_di.errors import Attempt, LimitExceeded, NoAvailableDestination
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.supervision.supervisor import Supervisor

__all__ = ["Picker"]


class Picker:
    """Picks destinations of one upstream.

    Args:
        policy: Chooses among the candidates.
        select: From policy and pool to a destination; affinity has one of its own.
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
