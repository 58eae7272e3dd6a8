"""Networks in settings: addresses and CIDRs, comma-separated or listed."""

import ipaddress
from typing import Annotated

from pydantic import BeforeValidator

from fastapi_proxy_di.settings.text import AlsoText, split_commas

__all__ = ["Networks"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(value: object) -> object:
    if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return value
    try:
        return ipaddress.ip_network(str(value).strip())
    except ValueError as error:
        raise ValueError(
            f"{error}; give addresses or networks such as 10.0.0.0/8 or fd00::/8"
            " (0.0.0.0/0 and ::/0 trust every peer)"
        ) from None


Networks = Annotated[
    tuple[Annotated[Network, BeforeValidator(_network)], ...],
    BeforeValidator(split_commas),
    AlsoText("Comma-separated addresses and networks."),
]
"""A tuple of networks; a single address is a network of one."""
