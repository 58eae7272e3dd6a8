"""Decides which headers are forwarded, and checks the headers that users set.

Headers are raw ``list[tuple[bytes, bytes]]``; order and repeats are kept. The kind of a header
depends on its name alone, so `HeaderKinds` caches it by name: one dict look-up per header.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final

Headers = list[tuple[bytes, bytes]]

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
"""A token, e.g. a header name (RFC 9110 section 5.6.2)."""

BLANKS: Final = b" \t"
"""What may stand around a header's value and is no part of it (OWS, RFC 9110 section 5.6.3)."""

_UNSAFE_VALUE: Final = re.compile(rb"[\x00\r\n]")

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",  # RFC 9113 section 3.1: the other half of an h2c offer
    }
)
"""Headers that belong to one connection and are not forwarded (RFC 9110 section 7.6.1)."""

PROXY_AUTHENTICATION: Final = frozenset(
    {b"proxy-authenticate", b"proxy-authorization", b"proxy-authentication-info"}
)
"""Headers between a client and its forward proxy (RFC 9110 section 11.7); not forwarded."""

HANDSHAKE_HEADERS: Final = frozenset(
    {
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
    }
)
"""WebSocket handshake headers (RFC 6455): each connection gets its own, none is copied."""

FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
FORWARDING: Final = frozenset({b"forwarded", b"x-real-ip"})
FORWARDING_PREFIX: Final = b"x-forwarded-"

_TABLE_LIMIT: Final = 4096
"""Names cached per table, so that clients that invent names cannot fill the memory."""


class HeaderKind(IntEnum):
    """Treatment of a header by the proxy. ``KEEP`` is 0, so that the common case is falsy."""

    KEEP = 0
    DROP = 1
    MALFORMED = 2
    CONNECTION = 3
    FORWARDED = 4
    HOST = 5
    LENGTH = 6
    CODING = 7
    EXPECT = 8
    TE = 9
    TRAILER = 10
    MAX_FORWARDS = 11


REQUEST_KINDS: Final[Mapping[bytes, HeaderKind]] = {
    b"connection": HeaderKind.CONNECTION,
    b"host": HeaderKind.HOST,
    b"content-length": HeaderKind.LENGTH,
    b"transfer-encoding": HeaderKind.CODING,
    b"expect": HeaderKind.EXPECT,
    b"te": HeaderKind.TE,
    b"max-forwards": HeaderKind.MAX_FORWARDS,
    b"forwarded": HeaderKind.FORWARDED,
    b"x-real-ip": HeaderKind.FORWARDED,
}
"""Request headers that the proxy handles itself."""

RESPONSE_KINDS: Final[Mapping[bytes, HeaderKind]] = {
    b"connection": HeaderKind.CONNECTION,
    b"trailer": HeaderKind.TRAILER,
    # RFC 7838 section 3: it names other ports and protocols of the upstream's own host.
    b"alt-svc": HeaderKind.DROP,
}
"""Response headers that the proxy handles itself."""


class HeaderKinds(dict[bytes, HeaderKind]):
    """Maps a header name, in any case, to its kind; adds names as they are looked up.

    Args:
        kinds: `REQUEST_KINDS` or `RESPONSE_KINDS`.
        drop: Further lower-case names that are not forwarded.
    """

    def __init__(self, kinds: Mapping[bytes, HeaderKind], drop: Iterable[bytes] = ()) -> None:
        super().__init__()
        dropped = dict.fromkeys((*HOP_BY_HOP, *PROXY_AUTHENTICATION), HeaderKind.DROP)
        self._special = {**dropped, **kinds, **dict.fromkeys(drop, HeaderKind.DROP)}
        self._of_requests = HeaderKind.FORWARDED in kinds.values()
        self._dashed = {name.replace(b"_", b"-") for name in self._special}

    def __missing__(self, name: bytes) -> HeaderKind:
        kind = self._decide(name)
        if len(self) < _TABLE_LIMIT:
            self[name] = kind
        return kind

    def _decide(self, name: bytes) -> HeaderKind:
        if not TOKEN.match(name):
            return HeaderKind.MALFORMED
        lower = name.lower()
        # CGI and WSGI read "_" as "-", so both spellings may be trusted by the destination.
        dashed = lower.replace(b"_", b"-")
        if self._of_requests and (dashed.startswith(FORWARDING_PREFIX) or dashed in FORWARDING):
            return HeaderKind.FORWARDED
        kind = self._special.get(lower)
        if kind is None:
            also = self._of_requests and dashed in self._dashed
            kind = HeaderKind.DROP if also else HeaderKind.KEEP
        return kind


class LowerNames(dict[bytes, bytes]):
    """Maps a header name, in any case, to lower case; adds names as they are looked up.

    One name always gives the same object, whose hash later look-ups need not compute again.
    """

    def __missing__(self, name: bytes) -> bytes:
        lower = name.lower()
        if len(self) < _TABLE_LIMIT:
            lower = self[name] = self.setdefault(lower, lower)
        return lower


class _DashedNames(dict[bytes, bytes]):
    """Maps a lower-case header name to the same with ``-`` for ``_``; adds names."""

    def __missing__(self, name: bytes) -> bytes:
        dashed = name.replace(b"_", b"-")
        if len(self) < _TABLE_LIMIT:
            self[name] = dashed
        return dashed


_dashed: Final = _DashedNames()


class TitleNames(dict[bytes, bytes]):
    """Maps a lower-case header name to title case, as in ``Content-Length``; adds names."""

    def __missing__(self, name: bytes) -> bytes:
        title = b"-".join(map(bytes.capitalize, name.split(b"-")))
        if len(self) < _TABLE_LIMIT:
            self[name] = title
        return title


def nominated(values: Iterable[bytes]) -> frozenset[bytes]:
    """Give the lower-case names that ``Connection`` headers nominate as hop-by-hop.

    RFC 9110 section 7.6.1 lets a sender nominate any name. The options ``close`` and
    ``keep-alive`` are given like names.
    """
    return frozenset(
        token.strip().lower() for value in values for token in value.split(b",") if token.strip()
    )


HeaderArgument = (
    Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str | bytes, str | bytes]]
)
"""Headers as users give them: a mapping or pairs, of str or bytes."""


def checked_headers(
    value: HeaderArgument | None,
    *,
    refuse: frozenset[bytes],
    what: str,
) -> Headers:
    """Validate headers that a user gives; return raw pairs with lower-case names.

    Args:
        value: A mapping or pairs, of str (latin-1) or bytes.
        refuse: Lower-case names that may not be given.
        what: The argument's name, for error messages.

    Raises:
        ValueError: A name is not a token or is refused, or a value has CR, LF or NUL.
    """
    if value is None:
        return []
    pairs: Iterable[tuple[str | bytes, str | bytes]] = (
        [*value.items()] if isinstance(value, Mapping) else value
    )
    checked: Headers = []
    for name, content in pairs:
        raw_name = (name.encode("latin-1") if isinstance(name, str) else bytes(name)).lower()
        raw_value = content.encode("latin-1") if isinstance(content, str) else bytes(content)
        if not TOKEN.match(raw_name):
            raise ValueError(f"{what}: {raw_name!r} is not a header name")
        if raw_name in refuse or raw_name.startswith(FORWARDING_PREFIX):
            raise ValueError(
                f"{what}: {raw_name.decode()!r} is set by the proxy; host, framing, hop-by-hop "
                "and forwarding headers cannot be given"
            )
        if _UNSAFE_VALUE.search(raw_value):
            raise ValueError(f"{what}: the value of {raw_name.decode()!r} contains CR, LF or NUL")
        checked.append((raw_name, raw_value.strip(BLANKS)))
    return checked


SET_BY_PROXY: Final = HOP_BY_HOP | FRAMING | FORWARDING | frozenset({b"host", b"expect", b"via"})
"""Request headers that the proxy sets; arguments and settings may not name them."""


def set_headers(headers: Headers, added: Headers) -> Headers:
    """Remove from ``headers`` every name in ``added``, then append ``added``."""
    return without(headers, *(name for name, _ in added)) + added


def without(headers: Headers, *names: bytes) -> Headers:
    """Give the headers without those of some lower-case names.

    ``x_key`` is removed with ``x-key``, because CGI and WSGI have one name for both.
    """
    removed = {_dashed[name] for name in names}
    return [pair for pair in headers if _dashed[pair[0]] not in removed]


def list_members(headers: Headers, name: bytes) -> list[bytes]:
    """Give the members of a comma-separated list in all headers of a name, in lower case."""
    return [
        token.strip().lower()
        for header, value in headers
        if header == name
        for token in value.split(b",")
        if token.strip()
    ]
