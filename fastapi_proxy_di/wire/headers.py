"""Which header fields cross the proxy, on raw ``list[tuple[bytes, bytes]]``.

Order and repeats survive; nothing is invented or folded. A field's fate depends on its
name alone, so it is decided once a name: `FieldTable` is a dict that fills itself and
costs one look-up per header line. It knows HTTP, not pools, and not who the peer is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final

Headers = list[tuple[bytes, bytes]]

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
"""A field name, RFC 9110 section 5.6.2."""

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
"""RFC 9110 section 7.6.1, and what nobody may send on: meant for the next hop alone."""

PROXY_AUTHENTICATION: Final = frozenset(
    {b"proxy-authenticate", b"proxy-authorization", b"proxy-authentication-info"}
)
"""RFC 9110 section 11.7: between a client and its forward proxy; never an origin's."""

HANDSHAKE_FIELDS: Final = frozenset(
    {
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
    }
)
"""RFC 6455: they belong to one hop; never copied, built anew for the other one."""

FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
FORWARDING: Final = frozenset({b"forwarded", b"x-real-ip"})
FORWARDING_PREFIX: Final = b"x-forwarded-"

_TABLE_LIMIT: Final = 4096
"""Names remembered per table; a client that invents more only pays for itself."""


class Fate(IntEnum):
    """What becomes of a field. ``KEEP`` is 0 so that the common case is falsy."""

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


REQUEST_FATES: Final[Mapping[bytes, Fate]] = {
    b"connection": Fate.CONNECTION,
    b"host": Fate.HOST,
    b"content-length": Fate.LENGTH,
    b"transfer-encoding": Fate.CODING,
    b"expect": Fate.EXPECT,
    b"te": Fate.TE,
    b"max-forwards": Fate.MAX_FORWARDS,
    b"forwarded": Fate.FORWARDED,
    b"x-real-ip": Fate.FORWARDED,
}
"""Request fields that decide something; a table for requests starts from them."""

RESPONSE_FATES: Final[Mapping[bytes, Fate]] = {
    b"connection": Fate.CONNECTION,
    b"trailer": Fate.TRAILER,
}
"""The same for responses."""


class FieldTable(dict[bytes, Fate]):
    """Field name, in any case, to its fate; fills itself.

    Args:
        fates: Fates of special names, `REQUEST_FATES` or `RESPONSE_FATES`.
        drop: Further lower-case names that never cross.
    """

    def __init__(self, fates: Mapping[bytes, Fate], drop: Iterable[bytes] = ()) -> None:
        super().__init__()
        dropped = dict.fromkeys((*HOP_BY_HOP, *PROXY_AUTHENTICATION), Fate.DROP)
        self._fates = {**dropped, **fates, **dict.fromkeys(drop, Fate.DROP)}
        self._forwarding = Fate.FORWARDED in fates.values()

    def __missing__(self, name: bytes) -> Fate:
        fate = self._decide(name)
        if len(self) < _TABLE_LIMIT:
            self[name] = fate
        return fate

    def _decide(self, name: bytes) -> Fate:
        if not TOKEN.match(name):
            return Fate.MALFORMED
        lower = name.lower()
        if self._forwarding and lower.startswith(FORWARDING_PREFIX):
            return Fate.FORWARDED
        return self._fates.get(lower, Fate.KEEP)


class LowerNames(dict[bytes, bytes]):
    """Field name, in any case, to the same in lower case; fills itself.

    The same object comes for the same name, so its hash is there for the tables behind.
    """

    def __missing__(self, name: bytes) -> bytes:
        lower = name.lower()
        if len(self) < _TABLE_LIMIT:
            lower = self[name] = self.setdefault(lower, lower)
        return lower


def nominated(values: Iterable[bytes]) -> frozenset[bytes]:
    """Lower-case names that ``Connection`` fields nominate as hop-by-hop.

    RFC 9110 section 7.6.1 lets a sender nominate any name. ``close`` and
    ``keep-alive`` are options, not fields; nominating them removes nothing that stays.
    """
    return frozenset(
        token.strip().lower() for value in values for token in value.split(b",") if token.strip()
    )


HeaderFields = Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str | bytes, str | bytes]]
"""Header arguments: a mapping or pairs, of str or bytes."""


def fields_of(
    value: HeaderFields | None,
    *,
    refuse: frozenset[bytes],
    what: str,
) -> Headers:
    """Header fields given by a user, validated, as raw pairs with lower-case names.

    Args:
        value: A mapping or pairs, of str (latin-1) or bytes.
        refuse: Lower-case names that stay ours.
        what: The argument's name, for errors.

    Raises:
        ValueError: A name is not a token, is one of ours, or a value has CR, LF or NUL.
    """
    if value is None:
        return []
    pairs: Iterable[tuple[str | bytes, str | bytes]] = (
        [*value.items()] if isinstance(value, Mapping) else value
    )
    fields: Headers = []
    for name, content in pairs:
        raw_name = (name.encode("latin-1") if isinstance(name, str) else bytes(name)).lower()
        raw_value = content.encode("latin-1") if isinstance(content, str) else bytes(content)
        if not TOKEN.match(raw_name):
            raise ValueError(f"{what}: {raw_name!r} is not a header name")
        if raw_name in refuse or raw_name.startswith(FORWARDING_PREFIX):
            raise ValueError(
                f"{what}: {raw_name.decode()!r} is set by the proxy; host, framing, hop-by-hop "
                "and forwarding fields cannot be given"
            )
        if _UNSAFE_VALUE.search(raw_value):
            raise ValueError(f"{what}: the value of {raw_name.decode()!r} contains CR, LF or NUL")
        fields.append((raw_name, raw_value.strip(b" \t")))
    return fields


OURS: Final = HOP_BY_HOP | FRAMING | FORWARDING | frozenset({b"host", b"expect", b"via"})
"""Names that header arguments of ``forward`` may not carry."""


def set_fields(headers: Headers, fields: Headers) -> Headers:
    """``headers`` with ``fields`` set by name: whatever stood under those names goes."""
    names = {name for name, _ in fields}
    return [pair for pair in headers if pair[0] not in names] + fields


def is_safe_block(block: bytes, lines: int) -> bool:
    """Whether a serialised head of ``lines`` lines has no CR, LF or NUL beyond its line ends.

    One look at the finished block proves what validating each part would: a part that
    smuggles in a line end changes the count.
    """
    bare = len(block.translate(None, b"\r\n\0"))
    return len(block) - bare == 2 * lines and block.count(b"\r\n") == lines


def list_members(headers: Headers, name: bytes) -> list[bytes]:
    """Members of a comma-separated list field, over all its lines, lower-case."""
    return [
        token.strip().lower()
        for field, value in headers
        if field == name
        for token in value.split(b",")
        if token.strip()
    ]
