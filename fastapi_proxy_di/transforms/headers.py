"""The headers that a transform reads and changes: names in any case, order and repeats kept.

Values are text (latin-1). Names and values that a transform writes are checked, so no transform
can break the framing of a message or change headers that the proxy sets.
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
    without,
)

REQUEST_SET_BY_PROXY: Final = SET_BY_PROXY | PROXY_AUTHENTICATION | HANDSHAKE_HEADERS
"""Request headers that no transform may change. ``X-Forwarded-*`` are set afterwards."""

RESPONSE_SET_BY_PROXY: Final = HOP_BY_HOP | FRAMING | PROXY_AUTHENTICATION | HANDSHAKE_HEADERS
"""Response headers that no transform may change."""


def _key(name: str) -> bytes:
    return name.lower().encode("latin-1")


class HeaderFields:
    """Headers that a transform can only read.

    Attributes:
        raw: Pairs of name, in lower case, and value.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: Headers) -> None:
        self.raw: Headers = raw

    @overload
    def get(self, name: str) -> str | None: ...

    @overload
    def get(self, name: str, default: str) -> str: ...

    def get(self, name: str, default: str | None = None) -> str | None:
        """Give the first value of a name, ``default`` if there is none."""
        key = _key(name)
        for header, value in self.raw:
            if header == key:
                return value.decode("latin-1")
        return default

    def getlist(self, name: str) -> list[str]:
        """Give all values of a name, in order."""
        key = _key(name)
        return [value.decode("latin-1") for header, value in self.raw if header == key]

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
    """Headers that a transform can change.

    ``headers["x-tenant"] = "acme"`` replaces all values of the name.

    Args:
        raw: Pairs of name and value; the list is replaced, never changed in place.
        set_by_proxy: Lower-case names that may be neither written nor removed.
    """

    __slots__ = ("_set_by_proxy",)

    def __init__(self, raw: Headers, set_by_proxy: frozenset[bytes]) -> None:
        self.raw: Headers = raw
        self._set_by_proxy = set_by_proxy

    def __setitem__(self, name: str, value: str) -> None:
        self.raw = set_headers(self.raw, self._checked(name, value))

    def append(self, name: str, value: str) -> None:
        """Add a header; others of the same name stay.

        Raises:
            ValueError: The proxy sets this header, or the value has CR, LF or NUL.
        """
        self.raw = self.raw + self._checked(name, value)

    def __delitem__(self, name: str) -> None:
        """Remove all headers of a name, if there are any."""
        key = _key(name)
        if self.is_ours(key):
            raise ValueError(f"headers: {name!r} is set by the proxy and cannot be removed")
        self.raw = without(self.raw, key)

    def keep_only(self, names: frozenset[bytes]) -> None:
        """Remove all headers except ``names`` (lower case) and headers that the proxy sets."""
        self.raw = [pair for pair in self.raw if pair[0] in names or self.is_ours(pair[0])]

    def is_ours(self, name: bytes) -> bool:
        """Whether the proxy sets the header of a lower-case name."""
        return name in self._set_by_proxy

    def _checked(self, name: str, value: str) -> Headers:
        return checked_headers([(name, value)], refuse=self._set_by_proxy, what="headers")
