"""Affinity by cookie: a signed cookie names the client's destination.

The cookie's value is ``<id>.<signature>``, both HMACs under ``affinity.key``. The id names
a destination without revealing its address. The signature distinguishes a cookie of this
proxy, whose destination may have left the pool, from a forged or foreign one, which is
ignored. All workers and restarts with the same key make the same values.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from hashlib import sha256
from hmac import compare_digest, digest
from typing import Final

from fastapi_proxy_di.balancing.hash_key import Scope
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.wire.cookies import cookie_values, without_cookie
from fastapi_proxy_di.wire.headers import Headers

__all__ = ["CookieBinding"]

_ID_BYTES: Final = 12
_SIGNATURE_BYTES: Final = 16
_SECURE_SCHEMES: Final = frozenset({"https", "wss"})
# What may stand in a Path attribute (RFC 6265 section 4.1.1): no control, no semicolon.
_PATH: Final = re.compile(rb"/[!-:<-~]*\Z")


class CookieBinding:
    """Names the destination in a signed cookie.

    Args:
        pool: The destinations.
        name: Name of the cookie.
        key: The secret that signs the cookie.
    """

    def __init__(self, pool: Pool, name: str, key: bytes) -> None:
        self._pool = pool
        self._name = name.encode("ascii")
        self._key = key
        # Several upstreams may share a key, but each accepts only its own cookies.
        self._context = pool.name.encode("ascii") + b"\0"
        self._known: tuple[Destination, ...] = ()
        self._by_value: dict[bytes, Destination] = {}
        self._values: dict[Destination, bytes] = {}

    def preferred(self, scope: Scope) -> Iterator[Destination] | None:
        """Return the destination that the cookie names; empty if it has left the pool.

        Returns:
            ``None`` if there is no cookie that this proxy signed.
        """
        values = list(cookie_values(scope.get("headers", ()), self._name))
        if not values:
            return None
        self._update()
        for value in values:
            destination = self._by_value.get(value)
            if destination is not None:
                return iter((destination,))
        return iter(()) if any(map(self._is_signed, values)) else None

    def strip(self, headers: Headers) -> Headers:
        """Give the request headers without the cookie, which is for this proxy only."""
        return without_cookie(headers, self._name)

    def remember(self, scope: Scope, prefix: bytes, destination: Destination) -> Headers:
        """Give the Set-Cookie header, nothing if the client has the right cookie already."""
        self._update()
        value = self._values.get(destination)
        # No cookie is set for a destination that has left the pool.
        if value is None or value in cookie_values(scope.get("headers", ()), self._name):
            return []
        host_only = self._name.startswith(b"__Host-")  # RFC 6265bis: with Path=/ alone
        path = b"/" if host_only or not _PATH.match(prefix) else prefix
        cookie = b"%b=%b; Path=%b; HttpOnly; SameSite=Lax" % (self._name, value, path)
        if scope.get("scheme") in _SECURE_SCHEMES:
            cookie += b"; Secure"
        return [(b"set-cookie", cookie)]

    def _update(self) -> None:
        """Compute the cookie values of the destinations; once per change of the pool."""
        if self._known is self._pool.destinations:
            return
        self._known = self._pool.destinations
        self._values = {one: self._value(one.url) for one in self._known}
        self._by_value = {value: one for one, value in self._values.items()}

    def _value(self, url: str) -> bytes:
        name = self._mac(b"destination\0" + url.encode("utf-8"), _ID_BYTES)
        return name + b"." + self._mac(b"cookie\0" + name, _SIGNATURE_BYTES)

    def _is_signed(self, value: bytes) -> bool:
        name, _, signature = value.partition(b".")
        return compare_digest(self._mac(b"cookie\0" + name, _SIGNATURE_BYTES), signature)

    def _mac(self, text: bytes, length: int) -> bytes:
        mac = digest(self._key, self._context + text, sha256)
        return urlsafe_b64encode(mac[:length]).rstrip(b"=")
