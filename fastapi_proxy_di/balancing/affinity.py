"""Affinity: a client stays on one destination while that destination can serve.

With affinity the client's destination is tried before the policy picks, and the setting
``on_missing`` decides what happens when that destination cannot be used. How a request names
its destination is in ``cookie_affinity``, ``header_affinity`` and ``issued_affinity``. Upstreams
without affinity do not use this file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from fastapi_proxy_di.balancing.cookie_affinity import CookieBinding, CookieForm
from fastapi_proxy_di.balancing.hash_key import RequestKey, Scope
from fastapi_proxy_di.balancing.header_affinity import HeaderBinding
from fastapi_proxy_di.balancing.issued_affinity import IssuedBinding
from fastapi_proxy_di.balancing.only_destination import OnlyDestination
from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.balancing.selection import Pick, select
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import AffinitySettings
from fastapi_proxy_di.wire.headers import Headers

__all__ = ["Affinity", "Binding", "affinity_of"]


class Binding(Protocol):
    """Reads the destination that a request names, by a cookie or by a header."""

    def preferred(self, scope: Scope) -> Iterator[Destination] | None:
        """Give the destinations that the request names, best first.

        Returns:
            ``None`` if the request names none; an empty iterator if it names one that has
            left the pool.
        """
        ...

    def strip(self, headers: Headers) -> Headers:
        """Give the request headers without the cookie or mark that only this proxy reads."""
        ...

    def remember(
        self, headers: Headers, scope: Scope, prefix: bytes, destination: Destination
    ) -> Headers:
        """Give the response headers, with what binds the client to ``destination``.

        Args:
            headers: The response headers that the client gets.
            scope: The client's connection scope.
            prefix: Path of the mount.
            destination: The destination that served the request.
        """
        ...


class Affinity:
    """A selection that keeps each client on its destination.

    Args:
        pool: The destinations.
        binding: Reads the client's destination from a request.
        fails: Whether a request fails when the client's destination cannot be used, instead
            of going to another one.
    """

    def __init__(self, pool: Pool, binding: Binding, *, fails: bool) -> None:
        self.binding = binding
        self._pool = pool
        self._fails = fails

    def select(
        self,
        policy: BalancingPolicy,
        pool: Pool,
        request: PickRequest | None = None,
        tried: Collection[Destination] = (),
    ) -> Pick:
        """Pick the destination for one attempt, as ``balancing.selection.select`` does.

        Picks none if the client's destination cannot be used and ``fails`` is set.
        """
        if type(request) is OnlyDestination:
            return request.pick(pool, tried)
        preferred = (
            self.binding.preferred(request.scope) if isinstance(request, RequestKey) else None
        )
        if preferred is None:
            return select(policy, pool, request, tried)
        full: list[Destination] = []
        for destination in preferred:
            if self._pool.unprobed(destination):
                continue  # by header, the destination that served the value before is the next
            if destination not in tried and self._available(destination):
                if not destination.full:
                    return destination, full
                full.append(destination)
            if self._fails:
                break
        if self._fails:
            return None, full
        picked, others = select(policy, pool, request, tried)
        return picked, (*full, *(one for one in others if one not in full))

    def chose(self, scope: Scope, destination: Destination | None) -> bool:
        """Whether the request names ``destination``."""
        return destination in (self.binding.preferred(scope) or ())

    def _available(self, destination: Destination) -> bool:
        # Not by the pool's snapshot, whose search is O(n).
        return destination.available or (
            self._pool.panic and not destination.draining and not destination.cooling
        )


def affinity_of(settings: AffinitySettings, pool: Pool) -> Affinity:
    """Build the affinity of the settings; called once, at start."""
    binding: Binding
    if settings.cookie is not None:
        assert settings.key is not None
        key = settings.key.get_secret_value().encode("utf-8")
        form = CookieForm(settings.cookie, settings.same_site, settings.max_age, settings.domain)
        binding = CookieBinding(pool, form, key)
    elif settings.issue:
        assert settings.header is not None
        assert settings.key is not None
        key = settings.key.get_secret_value().encode("utf-8")
        binding = IssuedBinding(pool, settings.header, key)
    else:
        assert settings.header is not None
        binding = HeaderBinding(pool, settings.header)
    return Affinity(pool, binding, fails=settings.on_missing == "fail")
