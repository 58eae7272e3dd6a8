"""Addresses of dynamic destinations: read strictly, and compared with allowed origins.

An address of the settings is written by an operator, an address of a request may be made of what
a client sent. So only one spelling of a literal IP address is read, and everything that two
readers of URLs may read differently is refused. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from fastapi_proxy_di.wire.addresses import Address, parse_address, shown_address
from fastapi_proxy_di.wire.reachable import Network, refusal

__all__ = ["Origin", "allowed_address", "dynamic_address", "literal_of", "parse_origin"]

_REMEMBERED: Final = 1024
"""Texts whose address is cached: a gateway sends many requests to each address."""
_LONGEST: Final = 2048
_SCHEMES: Final = frozenset({"http", "https"})
_AUTHORITY: Final = re.compile(r"[^:/]+://(?:\[[\da-fA-F:.]+\]|[^\[\]:/%]+)(?::\d+)?(?:/.*)?")
"""No zone, no escape and no second port."""
# WHATWG URL, "ends in a number": what ``inet_aton`` reads as an IPv4 address ends so.
_NUMBER: Final = re.compile(r"\d+|0x[\da-f]*")
_PLACEHOLDER: Final = "x"


class Origin(NamedTuple):
    """An allowed origin: scheme, host and port, with ``*`` for one label or for any port.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: The host without a final dot; without its leftmost label if that may be any.
        any_label: Whether one label, whichever, stands before ``host``.
        port: The port, ``None`` for any.
    """

    scheme: str
    host: str
    any_label: bool
    port: int | None

    def allows(self, address: Address) -> bool:
        """Whether ``address`` has this origin."""
        host = address.server_name
        if self.any_label:
            host = host.partition(".")[2]
        return (
            host == self.host
            and address.scheme == self.scheme
            and self.port in (None, address.port)
        )


@lru_cache(maxsize=_REMEMBERED)
def dynamic_address(text: str) -> Address:
    """Read the address of a dynamic destination, which code gives for one request.

    Args:
        text: An ``http`` or ``https`` URL, with a base path or without.

    Returns:
        The normalised address: lower case, IDNA, and a literal IP address only where it was
        written as four decimal numbers or in brackets.

    Raises:
        ValueError: The text is not such an address; the message shows no credentials.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} characters")
    address = parse_address(text)
    shown = shown_address(text)
    if address.scheme not in _SCHEMES:
        raise ValueError(f"{shown!r} has another scheme than http and https")
    if not _AUTHORITY.fullmatch(text.strip()):
        raise ValueError(f"{shown!r} has a host that is not a plain name or IP address")
    last = address.host.rstrip(".").rpartition(".")[2]
    if _NUMBER.fullmatch(last) and literal_of(address) is None:
        raise ValueError(f"{shown!r} has a bad IPv4 address; it is four numbers from 0 to 255")
    return address


def parse_origin(text: str) -> Origin:
    """Read an allowed origin of the settings.

    Args:
        text: E.g. ``http://*.notebooks.svc:8888`` or ``https://api.example:*``.

    Raises:
        ValueError: The text is not an origin; the message says how to write it.
    """
    scheme, separator, rest = text.strip().partition("://")
    any_label, any_port = rest.startswith("*."), rest.endswith(":*")
    plain = rest.removesuffix(":*")
    if any_label:
        plain = _PLACEHOLDER + plain.removeprefix("*")
    shown = shown_address(text)
    if "*" in plain:
        raise ValueError(
            f"{shown!r} has a '*' that is neither the whole leftmost label nor the port; write"
            " http://*.notebooks.svc:8888 or http://name:*"
        )
    if "/" in plain:
        raise ValueError(f"{shown!r} has a path; an origin ends with its host or port")
    address = dynamic_address(scheme + separator + plain)
    host = address.server_name
    if any_label:
        host = host.partition(".")[2]
        if not host:
            raise ValueError(f"{shown!r} has no name after the '*'; write http://*.notebooks.svc")
    return Origin(address.scheme, host, any_label, None if any_port else address.port)


def allowed_address(text: str, origins: Collection[Origin], networks: Sequence[Network]) -> Address:
    """Read the address of a dynamic destination, and check that it is allowed.

    A name needs an origin. A literal IP address needs an origin or a network, and is judged at
    once as ``refusal`` judges the addresses of names at the dial.

    Args:
        text: An ``http`` or ``https`` URL, with a base path or without.
        origins: The allowed origins.
        networks: The allowed networks.

    Raises:
        ValueError: The text is no address, or the address is not allowed.
    """
    address = dynamic_address(text)
    literal = literal_of(address)
    has_origin = any(origin.allows(address) for origin in origins)
    if not has_origin and (literal is None or not networks):
        raise ValueError(f"{address.url!r} has none of the allowed origins")
    reason = None if literal is None else refusal(str(literal), networks)
    if reason is not None:
        raise ValueError(f"{address.url!r} is refused: {reason}")
    return address


def literal_of(address: Address) -> IPv4Address | IPv6Address | None:
    """Give the IP address that the host of ``address`` is, ``None`` for a name."""
    try:
        return ip_address(address.host)
    except ValueError:
        return None
