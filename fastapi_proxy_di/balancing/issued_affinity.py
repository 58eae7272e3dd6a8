"""Affinity by an id that the upstream issues in a response header, such as ``mcp-session-id``.

On the way to the client the id gets a mark, ``~`` and 12 characters, which names the destination
that issued it. The client sends the id back with the mark; on the way to the destination the mark
is removed. So nothing is remembered, and any worker on any machine with the same
``affinity.key`` finds the destination.

The mark is made of HMACs under ``affinity.key``: 8 characters of the destination's address, and 4
of these 8. The 4 distinguish the mark of a destination that has left the pool from characters
that only look like a mark: those stay, because they are part of the id.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterator
from hashlib import sha256
from hmac import compare_digest, digest
from typing import Final

from fastapi_proxy_di.balancing.hash_key import Scope
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.wire.headers import Headers

__all__ = ["IssuedBinding"]

_NAME_CHARACTERS: Final = 8
_SIGNATURE_CHARACTERS: Final = 4
_CHARACTERS: Final = _NAME_CHARACTERS + _SIGNATURE_CHARACTERS
_SEPARATOR: Final = b"~"


class IssuedBinding:
    """Names the destination in the ids that it issues.

    Args:
        pool: The destinations.
        name: Name of the header that has the id, in responses and in requests.
        key: The secret that makes the marks.
    """

    def __init__(self, pool: Pool, name: str, key: bytes) -> None:
        self._pool = pool
        self._name = name.lower().encode("latin-1")
        self._key = key
        # Several upstreams may share a key, but each accepts only its own marks.
        self._context = pool.name.encode("ascii") + b"\0"
        self._known: tuple[Destination, ...] = ()
        self._by_mark: dict[bytes, Destination] = {}
        self._marks: dict[Destination, bytes] = {}

    def preferred(self, scope: Scope) -> Iterator[Destination] | None:
        """Return the destination that issued the id; empty if it has left the pool.

        Returns:
            ``None`` if the request has no id with a mark of this proxy.
        """
        for name, value in scope.get("headers", ()):
            if name == self._name and (mark := self._mark_of(value)) is not None:
                destination = self._by_mark.get(mark)
                return iter(()) if destination is None else iter((destination,))
        return None

    def strip(self, headers: Headers) -> Headers:
        """Give the request headers with the id as the destination issued it."""
        if all(name != self._name for name, _ in headers):
            return headers
        return [
            (name, _issued(value))
            if name == self._name and self._mark_of(value) is not None
            else (name, value)
            for name, value in headers
        ]

    def remember(
        self, headers: Headers, scope: Scope, prefix: bytes, destination: Destination
    ) -> Headers:
        """Give the response headers with the mark of ``destination`` at the id."""
        if all(name != self._name for name, _ in headers):
            return headers
        self._update()
        mark = self._marks.get(destination)
        if mark is None:
            return headers  # it has left the pool, so no request would find it
        return [
            (name, value + _SEPARATOR + mark) if name == self._name and value else (name, value)
            for name, value in headers
        ]

    def _mark_of(self, value: bytes) -> bytes | None:
        """Give the mark at the end of an id, ``None`` if there is none of this proxy."""
        separator = len(value) - _CHARACTERS - 1
        if separator < 1 or value[separator : separator + 1] != _SEPARATOR:
            return None
        self._update()
        mark = value[separator + 1 :]
        return mark if mark in self._by_mark or self._is_signed(mark) else None

    def _update(self) -> None:
        """Compute the marks of the destinations; once per change of the pool."""
        if self._known is self._pool.destinations:
            return
        self._known = self._pool.destinations
        self._marks = {one: self._mark(one.url) for one in self._known}
        self._by_mark = {mark: one for one, mark in self._marks.items()}

    def _mark(self, url: str) -> bytes:
        name = self._mac(b"issued by\0" + url.encode("utf-8"), _NAME_CHARACTERS)
        return name + self._signature(name)

    def _is_signed(self, mark: bytes) -> bool:
        return compare_digest(self._signature(mark[:_NAME_CHARACTERS]), mark[_NAME_CHARACTERS:])

    def _signature(self, name: bytes) -> bytes:
        return self._mac(b"mark\0" + name, _SIGNATURE_CHARACTERS)

    def _mac(self, text: bytes, characters: int) -> bytes:
        return urlsafe_b64encode(digest(self._key, self._context + text, sha256))[:characters]


def _issued(value: bytes) -> bytes:
    return value[: -_CHARACTERS - 1]
