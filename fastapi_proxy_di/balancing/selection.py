"""Selects the destination of one attempt, by policy and pool.

The file handles picks that cannot be used (full, or tried before), and the spill-over to the
next tier. It is part of the hot path: a pick that can be used costs the policy's own time and
two comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, Protocol, TypeAlias

from fastapi_proxy_di.balancing.only_destination import OnlyDestination
from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool

__all__ = ["Pick", "Selection", "select"]

_FURTHER_DRAWS: Final = 2

Pick: TypeAlias = tuple[Destination | None, Sequence[Destination]]
"""The selected destination, ``None`` if there is none, and the full ones that came before it.

The caller reports the full ones (``Supervisor.limits_reached``). A plain tuple, because one is
made for each attempt: on CPython 3.11 a named tuple costs ten times as much."""


class Selection(Protocol):
    """The signature of ``select`` and of ``Affinity.select``."""

    def __call__(
        self,
        policy: BalancingPolicy,
        pool: Pool,
        request: PickRequest | None = None,
        tried: Collection[Destination] = (),
    ) -> Pick:
        """Pick the destination for one attempt."""


def select(
    policy: BalancingPolicy,
    pool: Pool,
    request: PickRequest | None = None,
    tried: Collection[Destination] = (),
) -> Pick:
    """Pick the destination for one attempt; changes nothing but the state of the policy.

    Args:
        policy: The policy, which chooses one of the candidates.
        pool: The pool with the candidates. Draining destinations are never among them.
        request: The request that is to be sent.
        tried: Destinations this request has already been sent to.

    Returns:
        A destination with room that has not been tried, of the lowest tier that has one;
        ``None`` if there is none. To use a destination again, the caller calls ``select``
        without ``tried``. The second part are the full destinations that came before it: the
        policy's choice, and all of each tier in which none can be used.
    """
    if type(request) is OnlyDestination:
        return request.pick(pool, tried)
    candidates = pool.candidates
    picked = policy.pick(candidates, request)
    if (
        picked is not None
        and picked.in_flight < picked.in_flight_limit
        and picked.requests_in_window < picked.window_limit
        and (not tried or picked not in tried)
    ):
        return picked, ()
    # A dict, because the policy's choice is also one of the full ones of its tier.
    full: dict[Destination, None] = {}
    if picked is not None and picked.full:
        full[picked] = None
    for tier in pool.tiers:
        found = _search(policy, tier, request, tried, draw_first=tier is not candidates)
        if found is not None:
            return found, tuple(full)
        full.update((one, None) for one in tier if one.full)
    return None, tuple(full)


def _search(
    policy: BalancingPolicy,
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
    return min((one for one in tier if not one.full and one not in tried), key=_load, default=None)


def _load(destination: Destination) -> tuple[float, float]:
    """Give the requests in flight and those of the window, each per weight.

    Without the window the first idle destination would get the traffic of all full ones.
    """
    weight = destination.weight
    return destination.in_flight / weight, destination.requests_in_window / weight
