"""Explains a pick in one line: policy, candidates, and destinations left out.

The line is for people who debug a gateway, so it is only made if the setting ``explain`` is on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool

__all__ = ["explanation"]

_SHOWN: Final = 8
"""Destinations named in each list, so that the header stays short."""


def explanation(
    pool: Pool,
    how: str,
    tried: Collection[Destination],
    picked: Destination | None,
    cooled: Collection[Destination] = (),
) -> str:
    """Say why ``picked`` was picked; called before the pick is counted as in flight.

    Args:
        pool: The pool of the upstream.
        how: Name of the policy or affinity that picked.
        tried: Destinations this request has been sent to before.
        picked: The picked destination, ``None`` if there was none.
        cooled: Destinations that have refused the request's key (``ejection.key``).
    """
    free = [
        one for one in pool.candidates if not one.full and one not in tried and one not in cooled
    ]
    tier = pool.candidates[0].tier if pool.candidates else 0
    out = [
        f"{one.url} ({_reason(one, tried, cooled, tier, panic=pool.panic)})"
        for one in pool.destinations
        if one not in free and one is not picked
    ]
    mode = f"{how} in panic" if pool.panic else how
    chosen = "none" if picked is None else picked.url
    text = f"{mode} picked {chosen} of {len(free)}"
    if free:
        text += f": {_listed([one.url for one in free])}"
    return f"{text}; out: {_listed(out)}" if out else text


def _reason(
    one: Destination,
    tried: Collection[Destination],
    cooled: Collection[Destination],
    tier: int,
    *,
    panic: bool,
) -> str:
    if one.draining:
        return "draining"
    if one in tried:
        return "tried"
    if one in cooled:
        return "refused the key"
    if one.cooling:
        return "asked for a pause by Retry-After"
    if not panic and one.ejected_until is not None:
        return "ejected"
    if not panic and not one.healthy:
        return "unhealthy"
    if not panic and one.awaits_probe:
        return "not probed yet"
    if not panic and one.tier != tier:
        return f"tier {one.tier}"
    return "full"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
