"""The syntax of a Host header: ``uri-host [":" port]`` (RFC 9110 section 7.2)."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Final

__all__ = ["is_host"]

_REMEMBERED: Final = 1024
"""Values whose result is cached: a gateway mostly sees a few names."""

# RFC 3986 section 3.2.2. A reg-name may have "_", sub-delims and escapes; an IPv4 address is one.
_HOST: Final = re.compile(
    rb"(?:\[(?:(?P<ipv6>[0-9A-Fa-f:.]+)|v[0-9A-Fa-f]+\.[\w.~!$&'()*+,;=:-]+)\]"
    rb"|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)"
    rb"(?::[0-9]*)?"
)


@lru_cache(maxsize=_REMEMBERED)
def is_host(value: bytes) -> bool:
    """Whether ``value`` may be a Host.

    An empty host is none, with or without a port: ``http`` and ``https`` need one (RFC 9110
    §4.2.1), and nginx refuses it too.

    Args:
        value: The value of the header, without blanks around it.
    """
    match = _HOST.fullmatch(value)
    if match is None:
        return False
    ipv6 = match["ipv6"]
    if ipv6 is not None:
        try:
            IPv6Address(ipv6.decode("ascii"))
        except AddressValueError:
            return False
    return True
