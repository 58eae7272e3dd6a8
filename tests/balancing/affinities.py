"""Affinity over a pool for tests: settings, scopes with cookies, picks."""

from __future__ import annotations

from random import Random
from typing import Any

from fastapi_proxy_di.balancing.affinity import Affinity, affinity_of
from fastapi_proxy_di.balancing.hash_key import RequestKey, Scope
from fastapi_proxy_di.balancing.round_robin import RoundRobin
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import AffinitySettings

__all__ = ["COOKIE", "KEY", "Bound", "scope_of"]

KEY = "a long random text"
COOKIE: dict[str, Any] = {"cookie": "stay", "key": KEY}


def scope_of(*cookies: bytes, **more: Any) -> Scope:
    """Give the scope of a request with these Cookie headers."""
    return {"type": "http", "headers": [(b"cookie", value) for value in cookies], **more}


class Bound:
    """Affinity over a pool under ``round_robin``, which never picks the same one twice."""

    def __init__(self, pool: Pool, **settings: Any) -> None:
        self.pool = pool
        self.affinity: Affinity = affinity_of(AffinitySettings(**(settings or COOKIE)), pool)
        self.policy = RoundRobin(random=Random(1))

    def pick(self, scope: Scope, tried: tuple[Destination, ...] = ()) -> Destination | None:
        """Select for a request."""
        request = RequestKey(scope, lambda scope: None)
        return self.affinity.select(self.policy, self.pool, request, tried)[0]

    def cookie(self, destination: Destination, scope: Scope | None = None) -> bytes:
        """Give the value of Set-Cookie for ``destination``."""
        ((name, value),) = self.affinity.binding.remember(
            [], scope or scope_of(), b"/billing", destination
        )
        assert name == b"set-cookie"
        return value

    def pair(self, destination: Destination) -> bytes:
        """Give the cookie as the client sends it back."""
        return self.cookie(destination).partition(b";")[0]

    def picks(self, scope: Scope) -> set[Destination | None]:
        """Give the destinations of ten requests."""
        return {self.pick(scope) for _ in range(10)}
