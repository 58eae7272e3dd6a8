"""Reads ``/etc/hosts``: the addresses of names that need no DNS server (hosts(5))."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["parse_hosts"]


def parse_hosts(text: str) -> Mapping[str, tuple[str, ...]]:
    """Give the addresses of each name, as written and in the file's order.

    Args:
        text: Content of the file. A line is an address and its names; ``#`` starts a comment.

    Returns:
        Addresses by name in lower case. They may be malformed: the caller checks the addresses that
        it uses, since some machines list a hundred thousand names.
    """
    names: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        address, *of_line = line.partition("#")[0].split() or [""]
        for name in of_line:
            key = name.lower()
            names[key] = (*names.get(key, ()), address)
    return names
