"""Header fields as transforms see them: by name in any case, order and repeats kept.

Owns which names a transform may touch. Values are text (latin-1); what is written is
checked, so no transform can break a message's framing.
"""

from __future__ import annotations

from typing import Final, overload

from fastapi_proxy_di.wire.headers import (
    FRAMING,
    HANDSHAKE_HEADERS,
    HOP_BY_HOP,
    PROXY_AUTHENTICATION,
    SET_BY_PROXY,
    Headers,
    checked_headers,
    set_headers,
)

REQUEST_SET_BY_PROXY: Final = SET_BY_PROXY | PROXY_AUTHENTICATION | HANDSHAKE_HEADERS
"""Request fields that stay the proxy's. X-Forwarded-* are not among what transforms see."""

RESPONSE_SET_BY_PROXY: Final = HOP_BY_HOP | FRAMING | PROXY_AUTHENTICATION | HANDSHAKE_HEADERS
"""Response fields that stay the proxy's."""


def _key(name: str) -> bytes:
    return name.lower().encode("latin-1")


def without(headers: Headers, name: bytes) -> Headers:
    """``headers`` without those of a lower-case name."""
    return [pair for pair in headers if pair[0] != name]


class HeaderFields:
    """Header fields to read.

    Attributes:
        raw: The pairs, names in lower case.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: Headers) -> None:
        self.raw: Headers = raw

    @overload
    def get(self, name: str) -> str | None: ...

    @overload
    def get(self, name: str, default: str) -> str: ...

    def get(self, name: str, default: str | None = None) -> str | None:
        """Give the first value under a name, ``default`` if there is none."""
        key = _key(name)
        for field, value in self.raw:
            if field == key:
                return value.decode("latin-1")
        return default

    def getlist(self, name: str) -> list[str]:
        """Give every value under a name, in order."""
        key = _key(name)
        return [value.decode("latin-1") for field, value in self.raw if field == key]

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __repr__(self) -> str:
        # Values may be secrets.
        return (
            f"<{type(self).__name__} {', '.join(name.decode('latin-1') for name, _ in self.raw)}>"
        )


class EditableFields(HeaderFields):
    """Header fields to change. ``headers["x-tenant"] = "acme"`` takes the place of all under it.

    Args:
        raw: The pairs; replaced, never changed in place.
        ours: Lower-case names that may be neither written nor removed.
    """

    __slots__ = ("_ours",)

    def __init__(self, raw: Headers, ours: frozenset[bytes]) -> None:
        self.raw: Headers = raw
        self._ours = ours

    def __setitem__(self, name: str, value: str) -> None:
        self.raw = set_headers(self.raw, self._checked(name, value))

    def append(self, name: str, value: str) -> None:
        """Add a field after those that are there.

        Raises:
            ValueError: The name is the proxy's, or the value has CR, LF or NUL.
        """
        self.raw = self.raw + self._checked(name, value)

    def __delitem__(self, name: str) -> None:
        """Remove all under a name; no fault if there is none."""
        key = _key(name)
        if self.is_ours(key):
            raise ValueError(f"headers: {name!r} is set by the proxy and cannot be removed")
        self.raw = without(self.raw, key)

    def keep_only(self, names: frozenset[bytes]) -> None:
        """Remove everything but ``names`` (lower case) and what is the proxy's."""
        self.raw = [pair for pair in self.raw if pair[0] in names or self.is_ours(pair[0])]

    def is_ours(self, name: bytes) -> bool:
        """Whether a lower-case name is the proxy's."""
        return name in self._ours

    def _checked(self, name: str, value: str) -> Headers:
        return checked_headers([(name, value)], refuse=self._ours, what="headers")
