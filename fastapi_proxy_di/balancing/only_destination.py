"""``destination=`` of the pool: a request that may go to one destination alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from fastapi_proxy_di.balancing.hash_key import RequestKey, Scope, no_key
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool

__all__ = ["OnlyDestination"]


class OnlyDestination(RequestKey):
    """The key of a request that may go to one destination alone, which the app has named.

    The destination is looked up for each pick, because a reload or discovery may have put another
    object in its place.

    Attributes:
        url: Address of the destination, as the pool has it.

    Args:
        scope: The client's connection scope.
        url: Address of the destination, as the pool has it.
    """

    __slots__ = ("url",)

    def __init__(self, scope: Scope, url: str) -> None:
        super().__init__(scope, no_key)
        self.url: Final = url

    def pick(
        self, pool: Pool, tried: Collection[Destination]
    ) -> tuple[Destination | None, tuple[Destination, ...]]:
        """Pick the destination if it can be used: where panic is allowed, also if it is down.

        Returns:
            A `Pick`.
        """
        one = pool.find(self.url)
        if one is None or one in tried or pool.unprobed(one):
            return None, ()
        if not one.available and (not pool.panic_allowed or one.draining or one.cooling):
            return None, ()
        return (None, (one,)) if one.full else (one, ())
