"""Affinity: a client stays on one destination, by a signed cookie or by a header's value.

Owns: what the client's request says about that, what becomes of it when that destination
cannot serve, and the cookie. It stands in front of the policy as a selection of its own,
so that the path without affinity pays nothing. Must not know: I/O, how attempts are made.

The cookie's value is ``<id>.<signature>``, both HMACs under ``affinity.key``: the id names
a destination without telling its address, the signature tells a cookie of ours, whose
destination may have gone, from a forged or foreign one, which is ignored. Every worker and
every restart with the same key makes the same values.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Collection, Iterator
from hashlib import sha256
from hmac import compare_digest, digest
from itertools import chain
from random import Random
from typing import Final, Protocol

from starlette.types import Scope

from fastapi_proxy_di.balancing.hash import Hash
from fastapi_proxy_di.balancing.hash_key import RequestKey
from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.balancing.selection import Pick, select
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import AffinitySettings
from fastapi_proxy_di.transport.protocol import Headers

_ID_BYTES: Final = 12
_SIGNATURE_BYTES: Final = 16
_SECURE_SCHEMES: Final = frozenset({"https", "wss"})
# What may stand in a Path attribute (RFC 6265 section 4.1.1): no control, no semicolon.
_PATH: Final = re.compile(rb"/[!-:<-~]*\Z")


class Binding(Protocol):
    """How requests name the destination they belong to."""

    def preferred(self, scope: Scope) -> Iterator[Destination] | None:
        """Give the destinations in order of preference; none at all if it has gone.

        Returns:
            ``None`` if the request names none.
        """
        ...

    def strip(self, headers: Headers) -> Headers:
        """Leave out what is ours alone and not the destination's."""
        ...

    def remember(self, scope: Scope, prefix: bytes, destination: Destination) -> Headers:
        """Give the fields that bind the client to the destination that served it."""
        ...


class Affinity:
    """Selection that keeps a client where it was.

    Args:
        pool: The destinations.
        binding: How requests name theirs.
        fails: Whether a request fails when its destination is not available, instead of
            going to another one.
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

        Gives none if the client's own destination cannot be used and no other may be.
        """
        preferred = (
            self.binding.preferred(request.scope) if isinstance(request, RequestKey) else None
        )
        if preferred is None:
            return select(policy, pool, request, tried)
        full: list[Destination] = []
        for destination in preferred:
            if destination not in tried and self._available(destination):
                if not destination.full:
                    return destination, full
                full.append(destination)
            if self._fails:
                return None, full
        if self._fails:
            return None, full
        picked, others = select(policy, pool, request, tried)
        return picked, (*full, *(one for one in others if one not in full))

    def chose(self, scope: Scope, destination: Destination | None) -> bool:
        """Whether ``destination`` is one that the client's request names."""
        return destination in (self.binding.preferred(scope) or ())

    def _available(self, destination: Destination) -> bool:
        return destination.available or (self._pool.panic and not destination.draining)


class CookieBinding:
    """Names the destination in a signed cookie.

    Args:
        pool: The destinations.
        name: The cookie's.
        key: The secret.
    """

    def __init__(self, pool: Pool, name: str, key: bytes) -> None:
        self._pool = pool
        self._name = name.encode("ascii")
        self._key = key
        # One key may serve several upstreams; a cookie of one says nothing to another.
        self._context = pool.name.encode("ascii") + b"\0"
        self._known: tuple[Destination, ...] = ()
        self._by_value: dict[bytes, Destination] = {}
        self._values: dict[Destination, bytes] = {}

    def preferred(self, scope: Scope) -> Iterator[Destination] | None:
        values = list(self._cookies(scope))
        if not values:
            return None
        self._learn()
        for value in values:
            destination = self._by_value.get(value)
            if destination is not None:
                return iter((destination,))
        return iter(()) if any(map(self._is_ours, values)) else None

    def strip(self, headers: Headers) -> Headers:
        kept: Headers = []
        for pair in headers:
            if pair[0] == b"cookie" and self._name in pair[1]:
                others = [
                    part for part in pair[1].split(b";") if _name_value(part)[0] != self._name
                ]
                if others:
                    kept.append((b"cookie", b";".join(others).strip()))
            else:
                kept.append(pair)
        return kept

    def remember(self, scope: Scope, prefix: bytes, destination: Destination) -> Headers:
        self._learn()
        value = self._values.get(destination)
        # One that was removed while it served needs no client to come back to it.
        if value is None or value in self._cookies(scope):
            return []
        host_only = self._name.startswith(b"__Host-")  # RFC 6265bis: with Path=/ alone
        path = b"/" if host_only or not _PATH.match(prefix) else prefix
        cookie = b"%b=%b; Path=%b; HttpOnly; SameSite=Lax" % (self._name, value, path)
        if scope.get("scheme") in _SECURE_SCHEMES:
            cookie += b"; Secure"
        return [(b"set-cookie", cookie)]

    def _cookies(self, scope: Scope) -> Iterator[bytes]:
        """Values under our name, ours or not."""
        for name, value in scope.get("headers", ()):
            if name == b"cookie" and self._name in value:
                for part in value.split(b";"):
                    found, content = _name_value(part)
                    if found == self._name:
                        yield content

    def _learn(self) -> None:
        """Make the values of the destinations; once per change of the pool."""
        if self._known is self._pool.destinations:
            return
        self._known = self._pool.destinations
        self._values = {one: self._value(one.url) for one in self._known}
        self._by_value = {value: one for one, value in self._values.items()}

    def _value(self, url: str) -> bytes:
        name = self._mac(b"destination\0" + url.encode("utf-8"), _ID_BYTES)
        return name + b"." + self._mac(b"cookie\0" + name, _SIGNATURE_BYTES)

    def _is_ours(self, value: bytes) -> bool:
        name, _, signature = value.partition(b".")
        return compare_digest(self._mac(b"cookie\0" + name, _SIGNATURE_BYTES), signature)

    def _mac(self, text: bytes, length: int) -> bytes:
        mac = digest(self._key, self._context + text, sha256)
        return urlsafe_b64encode(mac[:length]).rstrip(b"=")


class HeaderBinding:
    """Hashes a header's value onto the destinations of the first tier, whatever their health.

    When the one it falls on cannot serve, the next on the ring does, and only its values
    move; when none of the tier can, the ring of the next tier decides.

    Args:
        pool: The destinations.
        name: The header's.
    """

    def __init__(self, pool: Pool, name: str) -> None:
        self._pool = pool
        self._name = name.lower().encode("ascii")
        # Draws only where there is no key. By the settings' weights: slow start is a matter
        # of health, and a ring made while it lasts would keep its weights for ever.
        self._ring = Hash(random=Random(), weigh=lambda one: one.settings.weight)  # noqa: S311
        self._known: tuple[Destination, ...] = ()
        self._tiers: list[tuple[Destination, ...]] = []

    def preferred(self, scope: Scope) -> Iterator[Destination] | None:
        for name, value in scope.get("headers", ()):
            if name == self._name:
                self._learn()
                key = _Key(value)
                return chain.from_iterable(self._ring.order(tier, key) for tier in self._tiers)
        return None

    def strip(self, headers: Headers) -> Headers:
        """Nothing: the header is the client's own."""
        return headers

    def remember(self, scope: Scope, prefix: bytes, destination: Destination) -> Headers:
        """Nothing: the client knows its header."""
        return []

    def _learn(self) -> None:
        """Tell the tiers apart; once per change of the pool."""
        everyone = self._pool.destinations
        if self._known is not everyone:
            self._known = everyone
            self._tiers = [
                tuple(one for one in everyone if one.tier == tier)
                for tier in sorted({one.tier for one in everyone})
            ]


class _Key:
    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def key(self) -> bytes:
        return self._value


def affinity_of(settings: AffinitySettings, pool: Pool) -> Affinity:
    """Build what the settings ask for. Once, at start."""
    binding: Binding
    if settings.cookie is not None:
        assert settings.key is not None
        key = settings.key.get_secret_value().encode("utf-8")
        binding = CookieBinding(pool, settings.cookie, key)
    else:
        assert settings.header is not None
        binding = HeaderBinding(pool, settings.header)
    return Affinity(pool, binding, fails=settings.on_missing == "fail")


def _name_value(part: bytes) -> tuple[bytes, bytes]:
    name, _, value = part.partition(b"=")
    return name.strip(), value.strip()
