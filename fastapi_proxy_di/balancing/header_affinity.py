"""Affinity by header: a header's value is hashed onto the destinations, whatever their health.

When the destination of a value cannot be used, the next one on the ring serves the value; all
other values stay. When no destination of the lowest tier can be used, the ring of the next tier
decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from random import Random

from fastapi_proxy_di.balancing.hash import Hash
from fastapi_proxy_di.balancing.hash_key import RequestKey, Scope, key_reader
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.wire.headers import Headers

__all__ = ["HeaderBinding"]


class HeaderBinding:
    """Finds the destination by the value of a request header.

    Args:
        pool: The destinations.
        name: Name of the header.
    """

    def __init__(self, pool: Pool, name: str) -> None:
        self._pool = pool
        self._read = key_reader(f"header:{name}")
        # The random source is used only without a key. The weights are the settings', because
        # a ring made during slow start would keep its low weights until the pool changes.
        self._ring = Hash(random=Random(), weigh=lambda one: one.settings.weight)  # noqa: S311
        self._known: tuple[Destination, ...] = ()
        self._tiers: list[tuple[Destination, ...]] = []

    def preferred(self, scope: Scope) -> Iterator[Destination] | None:
        """Give the destinations in the order of the ring, tier by tier.

        Returns:
            ``None`` if the request has no such header.
        """
        request = RequestKey(scope, self._read)
        if request.key() is None:
            return None
        self._update()
        return chain.from_iterable(self._ring.order(tier, request) for tier in self._tiers)

    def strip(self, headers: Headers) -> Headers:
        """Give all headers, because the header is the client's own and is forwarded."""
        return headers

    def remember(
        self, headers: Headers, scope: Scope, prefix: bytes, destination: Destination
    ) -> Headers:
        """Give the response headers as they are: the client sends the header by itself."""
        return headers

    def _update(self) -> None:
        """Group the destinations by tier; once per change of the pool."""
        destinations = self._pool.destinations
        if self._known is not destinations:
            self._known = destinations
            self._tiers = [
                tuple(one for one in destinations if one.tier == tier)
                for tier in sorted({one.tier for one in destinations})
            ]
