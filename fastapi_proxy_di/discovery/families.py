"""Which kinds of addresses a look-up asks for: IPv4 (A records), IPv6 (AAAA records) or both."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final, Literal

__all__ = ["Family", "families", "has_route"]

Family = Literal["auto", "ipv4", "ipv6", "both"]

_FAR: Final = {
    # A DNS root server for the default route, and the private networks for machines without one.
    4: ("198.41.0.4", "10.0.0.1", "172.16.0.1", "192.168.0.1"),
    6: ("2001:503:ba3e::2:30", "fd00::1"),
}
_PORT: Final = 53


def families(
    family: Family, routed: Callable[[int], bool] | None = None
) -> tuple[Literal[4, 6], ...]:
    """Give the versions of IP whose addresses are looked up.

    Args:
        family: The setting. With ``auto`` a version counts if the machine has a route for it; a
            machine without any route gets both.
        routed: Whether the machine has a route for a version; by default `has_route`.
    """
    if family == "ipv4":
        return (4,)
    if family == "ipv6":
        return (6,)
    if family == "both":
        return (4, 6)
    asked = has_route if routed is None else routed
    v4, v6 = asked(4), asked(6)
    if v4 == v6:
        return (4, 6)
    return (4,) if v4 else (6,)


def has_route(version: int) -> bool:
    """Whether the machine has a route for a version of IP. Nothing is sent.

    Connecting a UDP socket only chooses the route and the source address.
    """
    kind = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        probe = socket.socket(kind, socket.SOCK_DGRAM)
    except OSError:
        return False  # the kernel has no such version
    with probe:
        for address in _FAR[version]:
            try:
                probe.connect((address, _PORT))
            except OSError:
                continue
            return True
    return False
