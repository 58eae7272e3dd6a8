"""Gives the source of each scheme: the built-in ones, and the plug-ins among entry points."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import cast

from fastapi_proxy_di.discovery.protocol import DiscoverySource
from fastapi_proxy_di.settings.source_schemes import ENTRY_POINTS
from fastapi_proxy_di.wire.source_address import SourceAddress

__all__ = ["source_of"]


def source_of(address: SourceAddress) -> DiscoverySource:
    """Give the source that finds the destinations of ``address``.

    Raises:
        ValueError: The source cannot be loaded; the text begins with ``destinations``.
    """
    if address.prefix == "file":
        from fastapi_proxy_di.discovery.file import (  # noqa: PLC0415  # few upstreams have one
            check_file,
            file_source,
        )

        check_file(address)
        return file_source
    if address.prefix in ("dns", "srv"):
        from fastapi_proxy_di.discovery.records import (  # noqa: PLC0415  # few upstreams have one
            check_dns,
            dns_source,
        )

        check_dns()
        return dns_source
    try:
        (plug_in,) = entry_points(group=ENTRY_POINTS, name=address.prefix)
        loaded = plug_in.load()
    except Exception as error:
        raise ValueError(
            f"destinations: the plug-in {address.prefix!r} of {address.shown} cannot be loaded:"
            f" {error}"
        ) from error
    if not callable(loaded):
        raise ValueError(  # noqa: TRY004  # as all faults of settings
            f"destinations: the plug-in {address.prefix!r} of {address.shown} is no function, but"
            f" {type(loaded).__name__}; see DiscoverySource"
        )
    return cast("DiscoverySource", loaded)
