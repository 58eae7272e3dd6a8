"""Networks in settings: addresses and CIDRs, comma-separated or listed."""

import ipaddress
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import BeforeValidator

from fastapi_proxy_di.settings.text import AlsoText, split_commas

__all__ = ["Networks"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _listed(value: object) -> object:
    """Put a single network into a list; as an iterable it would be read address by address."""
    if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return [value]
    return split_commas(value)


def _network(value: object) -> object:
    if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return value
    try:
        return ipaddress.ip_network(str(value).strip())
    except ValueError as error:
        raise ValueError(
            f"{error}; give addresses or networks such as 10.0.0.0/8 or fd00::/8"
            " (0.0.0.0/0 and ::/0 are every address)"
        ) from None


if TYPE_CHECKING:
    _Given: TypeAlias = str | Network | ipaddress.IPv4Address | ipaddress.IPv6Address

    class Networks:
        """A field that accepts text, addresses and networks, and gives a tuple of networks."""

        def __get__(self, instance: object, owner: type | None = None) -> tuple[Network, ...]: ...

        # No Iterable: a network is one too, and would be read address by address.
        def __set__(
            self, instance: object, value: Sequence[_Given] | AbstractSet[_Given]
        ) -> None: ...

else:
    Networks = Annotated[
        tuple[Annotated[Network, BeforeValidator(_network)], ...],
        BeforeValidator(_listed),
        AlsoText("Comma-separated addresses and networks."),
    ]
    """A tuple of networks; a single address is a network of one."""
