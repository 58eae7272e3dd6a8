"""The addresses of DNS servers in the settings: ``10.0.0.53``, ``10.0.0.53:5353``, ``[::1]:53``."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

__all__ = ["parse_nameserver"]

_PORT: Final = 53
_WITH_PORT: Final = {
    4: re.compile(r"([^:\[\]]+)(?::([0-9]{1,5}))?"),
    6: re.compile(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?"),
}


def parse_nameserver(text: str) -> tuple[str, int]:
    """Read the address of a DNS server.

    Returns:
        Its numeric address and its port; 53 where the text has none.

    Raises:
        ValueError: The address is not valid; the text says how to write it.
    """
    text = text.strip()
    for version, pattern in _WITH_PORT.items():
        match = pattern.fullmatch(text)
        if match and _version(match[1]) == version and 1 <= int(match[2] or _PORT) <= 65535:
            return match[1], int(match[2] or _PORT)
    if _version(text) == 6:
        return text, _PORT
    raise ValueError(
        f"{text!r} is not the address of a DNS server; write 10.0.0.53, 10.0.0.53:5353 or"
        " [fd00::53]:5353"
    )


def _version(text: str) -> int | None:
    try:
        return ip_address(text).version
    except ValueError:
        return None
