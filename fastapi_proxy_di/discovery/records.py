"""Finds destinations by DNS: the addresses of a name, or the services of SRV records.

The order of the destinations is that of their addresses, whatever the order of a response, so
that all workers have the same list.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import NamedTuple

from fastapi_proxy_di.discovery.found import LookupFailed, Service
from fastapi_proxy_di.discovery.names import Names
from fastapi_proxy_di.discovery.pieces import Pieces
from fastapi_proxy_di.discovery.protocol import DiscoveryError, Search
from fastapi_proxy_di.settings import DestinationSettings
from fastapi_proxy_di.wire.addresses import parse_address
from fastapi_proxy_di.wire.source_address import SourceAddress

__all__ = ["check_dns", "dns_source"]


class _Record(NamedTuple):
    """One address and what its records say.

    Attributes:
        name: Host name for ``Host`` and TLS.
        address: The numeric address.
        port: The port.
        weight: Share of the traffic.
        tier: 0 for the records that are used first.
    """

    name: str
    address: str
    port: int
    weight: float = 1.0
    tier: int = 0


def check_dns() -> None:
    """Check that names can be looked up.

    Raises:
        ValueError: The package that asks name servers is not installed.
    """
    try:
        _ = Names()
    except ValueError as error:
        raise ValueError(f"destinations: {error}") from error


async def dns_source(search: Search, /) -> AsyncIterator[Sequence[DestinationSettings]]:
    """Give the destinations of a ``dns`` or ``srv`` address after each look-up."""
    settings, address = search.settings, search.address
    names = Names(settings.nameservers, settings.family, search.timeout)
    known: dict[_Record, DestinationSettings] = {}
    while True:
        try:
            if address.prefix == "srv":
                services = await names.service_addresses(address.host)
                records, ttl = [*_services(services.records)], services.ttl
            else:
                found = await names.addresses(address.host)
                port = address.port or 0  # an address of a name always has one
                records = [_Record(address.host, one, port) for one in found.records]
                ttl = found.ttl
        except LookupFailed as error:
            raise DiscoveryError(str(error)) from error
        # A thousand destinations are not validated anew after each look-up.
        pieces, made = Pieces(), {}
        for one in records:
            made[one] = known.get(one) or _destination(search, one)
            await pieces.pause()
        known = made
        yield list(known.values())
        await search.pause(ttl)


def _services(found: Iterable[tuple[Service, str]]) -> Iterator[_Record]:
    """Give tiers for priorities, the lowest first, and each target's weight to its addresses."""
    pairs = [*found]
    tiers = {priority: tier for tier, priority in enumerate(sorted({s.priority for s, _ in pairs}))}
    addresses: dict[Service, int] = {}
    for service, _ in pairs:
        addresses[service] = addresses.get(service, 0) + 1
    for service, address in pairs:
        # RFC 2782: 0 is for a very small share, or for all where weights do not matter.
        weight = max(1, service.weight) / addresses[service]
        yield _Record(service.target, address, service.port, weight, tiers[service.priority])


def _destination(search: Search, record: _Record) -> DestinationSettings:
    address: SourceAddress = search.address
    shown = f"[{record.address}]" if ":" in record.address else record.address
    named = parse_address(f"{address.scheme}://{record.name}:{record.port}")
    fields = {"weight": record.weight, "tier": record.tier} if address.prefix == "srv" else {}
    return DestinationSettings.model_validate(
        {
            "url": f"{address.scheme}://{shown}:{record.port}{address.path}",
            "host": named.authority.decode("ascii"),
            **fields,
        }
    )
