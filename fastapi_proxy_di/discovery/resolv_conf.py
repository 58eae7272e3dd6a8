"""Reads ``/etc/resolv.conf``: the DNS servers, and which full names a short one stands for.

As glibc does (resolv.conf(5), and ``__res_context_search`` in ``resolv/res_query.c``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

__all__ = ["ResolvConf", "parse_resolv_conf"]

_MOST_DOTS: Final = 15  # what glibc caps ndots at
_LONGEST_NAME: Final = 254  # RFC 1035 §2.3.4, with the final dot
_DOMAIN: Final = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NDOTS: Final = re.compile(r"ndots:(\d+)")


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What a look-up takes from ``/etc/resolv.conf``.

    Attributes:
        nameservers: Numeric addresses of the servers, in the order to ask them.
        search: Domains that are appended to short names; ``""`` is the root.
        ndots: A name with at least that many dots is looked up as written first.
    """

    nameservers: tuple[str, ...]
    search: tuple[str, ...]
    ndots: int

    def absolute_names(self, name: str) -> tuple[str, ...]:
        """Give the absolute names to look up one after the other, each with its final dot.

        Args:
            name: A name in lower case. With a final dot it is absolute already.
        """
        if name.endswith("."):
            return (name,)
        as_written = f"{name}."
        names = [f"{name}.{domain}." if domain else as_written for domain in self.search]
        if name.count(".") >= self.ndots:
            names.insert(0, as_written)
        else:
            names.append(as_written)
        return tuple(name for name in dict.fromkeys(names) if len(name) <= _LONGEST_NAME)


def parse_resolv_conf(text: str, host_name: str) -> ResolvConf:
    """Read the text of ``/etc/resolv.conf``. Lines that are not valid are skipped.

    Args:
        text: Content of the file; empty for a file that is missing.
        host_name: Name of the machine. The part after its first dot is the search list where
            the text has none.
    """
    servers: list[str] = []
    search: list[str] = [host_name.partition(".")[2]]
    ndots = 1
    for line in text.splitlines():
        keyword, *words = line.split() or [""]
        if line[:1].isspace():
            continue  # glibc expects the keyword at the start of the line
        if keyword == "nameserver" and words and _is_address(words[0]):
            servers.append(words[0])
        elif keyword == "domain" and words:
            search = words[:1]
        elif keyword == "search" and words:
            search = words
        elif keyword == "options":
            for option in words:
                if match := _NDOTS.fullmatch(option):
                    ndots = min(int(match[1]), _MOST_DOTS)
    return ResolvConf(tuple(servers) or ("127.0.0.1",), _domains(search), ndots)


def _domains(words: list[str]) -> tuple[str, ...]:
    bare = (word.lower().removesuffix(".") for word in words if word)
    return tuple(word for word in bare if not word or _DOMAIN.fullmatch(word))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
