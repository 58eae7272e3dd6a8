"""Which schemes of sources are known: the built-in ones, and those of installed plug-ins."""

from importlib.metadata import entry_points
from typing import Final

from fastapi_proxy_di.wire.addresses import shown_address
from fastapi_proxy_di.wire.source_address import (
    BUILT_IN,
    SourceAddress,
    parse_source,
    prefix_of_source,
)

__all__ = ["ENTRY_POINTS", "source_at"]

ENTRY_POINTS: Final = "fastapi_proxy_di.discovery"
"""The group of entry points; the name of each is the prefix of its schemes."""


def source_at(text: str) -> SourceAddress | None:
    """Read the address of a source; ``None`` if it is the address of a destination.

    Raises:
        ValueError: The address is not valid, or nothing is installed that reads its scheme.
    """
    prefix = prefix_of_source(text)
    if prefix is None:
        return None
    if prefix not in BUILT_IN:
        plug_ins = sorted(entry_points(group=ENTRY_POINTS).names)
        if prefix not in plug_ins:
            known = "".join(f", {name}" for name in plug_ins)
            raise ValueError(
                f"{shown_address(text.strip())!r} has the scheme {prefix!r}; use http,"
                " https, http+unix or asgi for a destination, or dns+http, dns+https, srv+http,"
                f" srv+https or file{known} for a source; other schemes need a plug-in that has"
                f" the entry point {prefix!r} in the group {ENTRY_POINTS}"
            )
    return parse_source(text)
