"""The addresses of DNS servers in the settings: ``10.0.0.53``, ``10.0.0.53:5353``, ``[::1]:53``."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

__all__ = ["parse_nameserver"]

_PORT: Final = 53
_WITH_PORT: Final = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<v4>[^:\[\]]+))(?::(?P<port>\d{1,5}))?")


def parse_nameserver(text: str) -> tuple[str, int]:
    """Read the address of a DNS server.

    Returns:
        Its numeric address and its port; 53 where the text has none.

    Raises:
        ValueError: The address is not valid; the text says how to write it.
    """
    text = text.strip()
    match = _WITH_PORT.fullmatch(text)
    host, port = text, _PORT
    if match is not None:
        host, port = match["v6"] or match["v4"], int(match["port"] or _PORT)
    try:
        version = ip_address(host).version
    except ValueError:
        version = None
    if version is None or not 1 <= port <= 65535 or (version == 4) != (":" not in host):
        raise ValueError(
            f"{text!r} is not the address of a DNS server; write 10.0.0.53, 10.0.0.53:5353"
            " or [fd00::53]:5353"
        )
    return host, port
