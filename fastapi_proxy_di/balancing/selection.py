"""From policy and pool to the destination of one attempt.

Owns: what happens when the policy's pick cannot be used (full, or tried before) and the
spill-over to the next tier. Must not know: clocks, I/O, how a policy chooses. Part of the
hot path: a pick that is fine costs the policy's own time and two comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, Protocol

from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool

__all__ = ["Selection", "select"]

_FURTHER_DRAWS: Final = 2


class Selection(Protocol):
    """What ``select`` is; affinity brings one of its own that comes before it."""

    def __call__(
        self,
        policy: BalancingPolicy,
        pool: Pool,
        request: PickRequest | None = None,
        tried: Collection[Destination] = (),
    ) -> Destination | None:
        """Pick the destination for one attempt."""


def select(
    policy: BalancingPolicy,
    pool: Pool,
    request: PickRequest | None = None,
    tried: Collection[Destination] = (),
) -> Destination | None:
    """Pick the destination for one attempt.

    Args:
        policy: Chooses among the candidates.
        pool: Gives the candidates. Draining destinations are never among them.
        request: What the attempt is for.
        tried: Destinations this request has already been sent to.

    Returns:
        A destination with room that has not been tried, of the lowest tier that has one;
        ``None`` if there is none. Whether one that was tried is used again is up to the
        caller (``select`` once more without ``tried``).
    """
    candidates = pool.candidates
    picked = policy.pick(candidates, request)
    if (
        picked is not None
        and picked.in_flight < picked.in_flight_limit
        and picked.requests_in_window < picked.window_limit
        and (not tried or picked not in tried)
    ):
        return picked
    if picked is not None and picked.full:
        pool.passed_over(picked)
    for tier in pool.tiers:
        found = _search(policy, pool, tier, request, tried, draw_first=tier is not candidates)
        if found is not None:
            return found
    for destination in candidates:
        if destination.full:  # a policy that never picks a full one kept silent about it
            pool.passed_over(destination)
    return None


def _search(
    policy: BalancingPolicy,
    pool: Pool,
    tier: Sequence[Destination],
    request: PickRequest | None,
    tried: Collection[Destination],
    *,
    draw_first: bool,
) -> Destination | None:
    order: Callable[..., Iterator[Destination]] | None = getattr(policy, "order", None)
    draws = draw_first + (0 if order is not None else _FURTHER_DRAWS)
    for _ in range(draws):
        picked = policy.pick(tier, request)
        if picked is not None and not picked.full and picked not in tried:
            return picked
    if order is not None:
        for destination in order(tier, request):
            if not destination.full and destination not in tried:
                return destination
        return None
    free = [one for one in tier if not one.full and one not in tried]
    if not free:
        return None
    # In turn. The first one found would inherit the share of all full ones before it.
    pool.scans += 1
    return free[pool.scans % len(free)]
