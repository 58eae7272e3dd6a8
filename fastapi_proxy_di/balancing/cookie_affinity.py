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
from math import ceil
from typing import Final

from fastapi_proxy_di.balancing.hash_key import Scope
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.wire.cookies import cookie_values, without_cookie
from fastapi_proxy_di.wire.headers import Headers

__all__ = ["CookieBinding", "CookieForm"]

_ID_BYTES: Final = 12
_SIGNATURE_BYTES: Final = 16
_SECURE_SCHEMES: Final = frozenset({"https", "wss"})
# What may stand in a Path attribute (RFC 6265 section 4.1.1): no control, no semicolon.
_PATH: Final = re.compile(rb"/[!-:<-~]*\Z")


class CookieForm:
    """Name and attributes of the cookie (RFC 6265 section 4.1).

    ``SameSite=None`` always has ``Secure``: without it browsers refuse such a cookie, and the
    scheme is ``http`` behind a TLS terminator that is not trusted.

    Args:
        name: Name of the cookie.
        same_site: ``lax``, ``strict`` or ``none``.
        max_age: Seconds that the browser keeps the cookie, rounded up; ``None`` for its session.
        domain: The domain whose hosts get the cookie; ``None`` for the responding host alone.
    """

    def __init__(
        self,
        name: str,
        same_site: str = "lax",
        max_age: float | None = None,
        domain: str | None = None,
    ) -> None:
        self.name: Final = name.encode("ascii")
        # RFC 6265bis: a cookie whose name begins so has no path but "/".
        self._root_only = name.startswith("__Host-")
        self._always_secure = same_site == "none"
        attributes = f"; HttpOnly; SameSite={same_site.capitalize()}"
        if max_age is not None:
            attributes += f"; Max-Age={ceil(max_age)}"
        if domain is not None:
            attributes += f"; Domain={domain}"
        self._attributes = attributes.encode("ascii")

    def cookie(self, value: bytes, prefix: bytes, *, secure: bool) -> bytes:
        """Give the value of the Set-Cookie header.

        Args:
            value: Value of the cookie.
            prefix: Path of the mount.
            secure: Whether the client uses TLS.
        """
        path = b"/" if self._root_only or not _PATH.match(prefix) else prefix
        cookie = b"%b=%b; Path=%b%b" % (self.name, value, path, self._attributes)
        return cookie + b"; Secure" if secure or self._always_secure else cookie


class CookieBinding:
    """Names the destination in a signed cookie.

    Args:
        pool: The destinations.
        form: Name and attributes of the cookie.
        key: The secret that signs the cookie.
    """

    def __init__(self, pool: Pool, form: CookieForm, key: bytes) -> None:
        self._pool = pool
        self._form = form
        self._name = form.name
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

    def remember(
        self, headers: Headers, scope: Scope, prefix: bytes, destination: Destination
    ) -> Headers:
        """Add the Set-Cookie header, unless the client has the right cookie already."""
        self._update()
        value = self._values.get(destination)
        # No cookie is set for a destination that has left the pool.
        if value is None or value in cookie_values(scope.get("headers", ()), self._name):
            return headers
        secure = scope.get("scheme") in _SECURE_SCHEMES
        return [*headers, (b"set-cookie", self._form.cookie(value, prefix, secure=secure))]

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
