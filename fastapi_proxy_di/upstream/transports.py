"""Makes and closes the transports to an upstream's destinations, also those for probes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from fastapi_proxy_di.forwarding.destination_transport import DestinationTransport
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import DestinationSettings, UpstreamSettings
from fastapi_proxy_di.transport.factory import ANY, TransportFactory
from fastapi_proxy_di.transport.protocol import Transport
from fastapi_proxy_di.wire.addresses import Address

__all__ = ["Transports"]

_LOOK_SECONDS: Final = 0.1
"""Seconds between two checks whether a removed destination is still in use."""


class Transports:
    """The transports to the destinations of one upstream.

    Args:
        factory: Makes transports.
        destinations: The destinations of the settings.

    Attributes:
        factory: Makes transports.
        by_destination: The transport to each destination, including removed ones in use.
    """

    def __init__(self, factory: TransportFactory, destinations: Iterable[Destination]) -> None:
        self.factory: TransportFactory = factory
        self._retired: set[Transport] = set()
        self._probe_transports: dict[Destination, Transport] = {}
        self.by_destination: dict[Destination, DestinationTransport] = {}
        for one in destinations:
            self.by_destination[one] = DestinationTransport.to(
                one, factory.make(one.settings.address)
            )

    def make(self, settings: Iterable[DestinationSettings]) -> dict[str, Transport]:
        """Make the transports of new destinations, by their URL.

        Raises:
            ValueError: The settings do not fit one of them.
        """
        return {one.url: self.factory.make(one.address) for one in settings}

    def add(self, destinations: Iterable[Destination], made: Mapping[str, Transport]) -> None:
        """Add new destinations with the transports made for them."""
        for one in destinations:
            self.by_destination[one] = DestinationTransport.to(one, made[one.url])

    async def renewed(self, settings: UpstreamSettings) -> TransportFactory:
        """Give a factory for changed settings; changes nothing.

        Raises:
            ValueError: A certificate cannot be used.
        """
        addresses = [one.settings.address for one in tuple(self.by_destination)]
        addresses += [one.address for one in settings.destination_settings]
        addresses += [ANY] * settings.allowed_destinations.some
        # In a thread, because the roots of the system alone take tens of milliseconds.
        return await asyncio.to_thread(self.factory.renewed, settings, addresses)

    def replaced_by(self, factory: TransportFactory) -> list[Destination]:
        """Give the destinations that need a new transport, because their connections change."""
        return [
            one
            for one in self.by_destination
            if factory.replaces(self.factory, one.settings.address)
        ]

    def use(
        self, factory: TransportFactory, replacements: Mapping[Destination, Transport]
    ) -> list[Transport]:
        """Go by the settings of ``factory`` from now on.

        Returns:
            The transports that were replaced. Their idle connections are closed; each needs
            ``ended``, which waits until the others are closed, too.
        """
        replaced = []
        for destination, transport in replacements.items():
            replaced.append(self.by_destination[destination].transport)
            self.by_destination[destination].transport = transport
        replaced += [
            self._probe_transports.pop(one)
            for one in tuple(self._probe_transports)
            if factory.replaces(self.factory, one.settings.probe_address)
        ]
        self.factory = factory
        for transport in self._in_use():
            factory.configure(transport)
        for transport in replaced:
            transport.retire()
        self._retired.update(replaced)
        return replaced

    async def ended(self, transport: Transport) -> None:
        """Wait until a transport that was replaced has no connections, nor is opening one."""
        while transport.connections or transport.dialling:  # noqa: ASYNC110  # no event tells that a count is 0
            await asyncio.sleep(_LOOK_SECONDS)
        self._retired.discard(transport)

    async def start(self) -> None:
        """Start the in-process apps that are destinations."""
        await self.factory.start()

    async def retire(self, destination: Destination) -> None:
        """Close a removed destination's connections once nothing is in flight."""
        while destination.in_flight:  # noqa: ASYNC110  # no event tells that a count is 0
            await asyncio.sleep(_LOOK_SECONDS)
        transports = [self.by_destination.pop(destination).transport]
        if destination in self._probe_transports:
            transports.append(self._probe_transports.pop(destination))
        self._retired.update(transports)  # for a close of the upstream meanwhile
        for transport in transports:
            await transport.aclose()
            self._retired.discard(transport)

    def to_probe(self, destination: Destination) -> tuple[Transport, Address]:
        """Give the transport and the address for probes of ``destination``."""
        address = destination.settings.probe_address
        if destination.settings.health_url is None:
            return self.by_destination[destination].transport, address
        transport = self._probe_transports.get(destination)
        if transport is None:
            transport = self._probe_transports[destination] = self.factory.make(address)
        return transport, address

    def connections(self, destination: Destination) -> tuple[int, int]:
        """Give how many connections to a destination are in use, and how many are idle.

        Another thread may ask for a destination that is just being added or retired.
        """
        found = self.by_destination.get(destination)
        if found is None:
            return 0, 0
        transport = found.transport
        return transport.connections - transport.idle, transport.idle

    def all(self) -> list[Transport]:
        """Return all transports, to close them."""
        return [*self._in_use(), *self._retired]

    def _in_use(self) -> list[Transport]:
        forwarding = [one.transport for one in self.by_destination.values()]
        return forwarding + list(self._probe_transports.values())
