"""The dynamic destinations of an upstream: made at first use, dropped when idle.

Their number is bounded, because a client may have a part in choosing an address. Where the bound
is reached, the destination that has been idle for longest makes room for a new one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextvars import Context
from itertools import islice
from typing import Final

from fastapi_proxy_di.errors import LimitExceeded, UpstreamConnectError
from fastapi_proxy_di.forwarding.destination_transport import DestinationTransport
from fastapi_proxy_di.forwarding.outage import Outage
from fastapi_proxy_di.pools.destination import Destination, DynamicDestination
from fastapi_proxy_di.settings import DestinationSettings, LimitSettings
from fastapi_proxy_di.transport.factory import TransportFactory
from fastapi_proxy_di.transport.protocol import Transport
from fastapi_proxy_di.wire.addresses import Address

__all__ = ["LIMIT", "DynamicDestinations"]

LIMIT: Final = "limits.dynamic_destinations"
"""Name of the setting that bounds their number."""

_LEAST_SECONDS: Final = 1.0
"""Least time between two looks for destinations without connections."""


class DynamicDestinations:
    """The destinations that are in use, or have been a moment ago, with their transports.

    Args:
        name: Name of the upstream.
        limits: How many there may be, and how long an idle connection is kept.
        factory: Makes the transports.
        limit_hit: Reports that the limit has refused a request; tells whether that is an event.

    Attributes:
        by_destination: The transport to each destination.
    """

    def __init__(
        self,
        name: str,
        limits: LimitSettings,
        factory: TransportFactory,
        limit_hit: Callable[[str], bool],
    ) -> None:
        self.by_destination: Final[dict[Destination, DestinationTransport]] = {}
        self._name: Final = name
        self._most = limits.dynamic_destinations
        self._idle_seconds = max(_LEAST_SECONDS, limits.idle_seconds)
        self._factory = factory
        self._limit_hit: Final = limit_hit
        self._loop: Final = asyncio.get_running_loop()
        # The one that was asked for last is the last one.
        self._by_url: Final[OrderedDict[str, Destination]] = OrderedDict()
        self._holders: Final[dict[Destination, int]] = {}
        # One for each, so that an address that does not respond slows no other one down.
        self._outages: Final[dict[Destination, Outage]] = {}
        self._closing: Final[set[asyncio.Task[None]]] = set()
        # Transports that were replaced, until the next look after their last connection.
        self._replaced: Final[set[Transport]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._retired = False
        self._closed = False

    def __len__(self) -> int:
        return len(self.by_destination)

    @property
    def in_flight(self) -> int:
        """Number of requests, tunnels and leases under way; in any thread."""
        return sum([one.in_flight for one in tuple(self.by_destination)])

    @property
    def waiting(self) -> int:
        """Number of requests that wait until their address responds; in any thread."""
        return sum([one.waiting for one in tuple(self._outages.values())])

    def numbers(self) -> tuple[int, int, int]:
        """Give ``in_flight``, the connections in use and the idle ones; in any thread."""
        transports = [one.transport for one in tuple(self.by_destination.values())]
        transports += tuple(self._replaced)
        idle = sum([one.idle for one in transports])
        return self.in_flight, sum([one.connections for one in transports]) - idle, idle

    def hold(self, address: Address) -> Destination:
        """Give the destination at ``address``, which stays until ``release`` and its last request.

        Raises:
            LimitExceeded: As many destinations as there may be are in use.
            UpstreamConnectError: The upstream is shut down.
        """
        destination = self._by_url.get(address.url)
        if destination is None:
            destination = self._add(address)
        else:
            self._by_url.move_to_end(address.url)
        self._holders[destination] += 1
        return destination

    def release(self, destination: Destination) -> None:
        """End one ``hold``."""
        self._holders[destination] -= 1

    def outage_of(self, destination: Destination) -> Outage:
        """Give where the requests wait that hold a destination which does not respond."""
        return self._outages[destination]

    def end_waiting(self) -> None:
        """Refuse the requests that wait, and later ones."""
        self._closed = True
        for outage in self._outages.values():
            outage.close()

    def use(self, limits: LimitSettings, factory: TransportFactory, *, replaces: bool) -> None:
        """Go by other limits from now on, and by the transports of another factory.

        Args:
            limits: How many there may be, and how long an idle connection is kept.
            factory: Makes the transports.
            replaces: Whether no connection of the former factory may serve later requests. Else
                those stay that the two factories do not make differently.
        """
        before, self._factory = self._factory, factory
        self._retired = False
        changed = [
            one
            for one in self.by_destination
            if replaces or factory.replaces(before, one.settings.address)
        ]
        self._drop([one for one in changed if not self._is_busy(one)])
        for one in changed:
            if one in self.by_destination:
                self._replace(self.by_destination[one], one.settings.address)
        for to in self.by_destination.values():
            factory.configure(to.transport)
        self._limit(limits)

    def retire(self) -> None:
        """Drop what is not in use, and each connection when it becomes idle, until ``use``.

        Then no connection is left when the last request has ended.
        """
        self._retired = True
        self._drop([one for one in self.by_destination if not self._is_busy(one)])
        for to in self.by_destination.values():
            to.transport.retire()

    async def aclose(self) -> None:
        """Close all connections; none is opened any more."""
        self.end_waiting()
        if self._sweep is not None:
            self._sweep.cancel()
        # The destinations stay, for requests that wait for another attempt, which fails.
        transports = [one.transport for one in self.by_destination.values()]
        transports += self._replaced
        await asyncio.gather(*self._closing, *(one.aclose() for one in transports))

    def _add(self, address: Address) -> Destination:
        if self._closed:
            raise UpstreamConnectError("the upstream is shut down")
        self._drop_idle(len(self._by_url) + 1 - self._most)
        if len(self._by_url) >= self._most:
            raise self._too_many()
        destination = DynamicDestination(DestinationSettings(url=address.url))
        to = DestinationTransport.to(destination, self._factory.make(address))
        if self._retired:
            to.transport.retire()
        self._by_url[address.url] = destination
        self._holders[destination] = 0
        self._outages[destination] = Outage(self._name)
        self.by_destination[destination] = to
        self._sweep_later()
        return destination

    def _replace(self, to: DestinationTransport, address: Address) -> None:
        to.transport.retire()
        self._replaced.add(to.transport)
        to.transport = self._factory.make(address)

    def _limit(self, limits: LimitSettings) -> None:
        self._most = limits.dynamic_destinations
        self._drop_idle(len(self._by_url) - self._most)
        idle_seconds = max(_LEAST_SECONDS, limits.idle_seconds)
        if idle_seconds != self._idle_seconds:
            self._idle_seconds = idle_seconds
            if self._sweep is not None:
                self._sweep.cancel()
                self._sweep = None
                self._sweep_later()

    def _drop_idle(self, number: int) -> None:
        """Drop up to ``number`` destinations, those first that have been idle for longest."""
        if number > 0:
            idle = (one for one in self._by_url.values() if not self._is_busy(one))
            self._drop(tuple(islice(idle, number)))

    def _is_busy(self, destination: Destination) -> bool:
        return bool(self._holders[destination] or destination.in_flight)

    def _too_many(self) -> LimitExceeded:
        error = LimitExceeded(
            f"{LIMIT} of {self._name} is reached, and no address is idle", upstream=self._name
        )
        error.limit = LIMIT
        error.announced = self._limit_hit(LIMIT)
        error.retry_after = self._idle_seconds
        return error

    def _drop(self, destinations: Collection[Destination]) -> None:
        for one in destinations:
            del self._by_url[one.url], self._holders[one], self._outages[one]
            one.removed = True  # the rules of ejection forget it then
            self._close(self.by_destination.pop(one).transport, one.url)

    def _close(self, transport: Transport, url: str) -> None:
        task = self._loop.create_task(transport.aclose(), name=f"closing {url}", context=Context())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _sweep_later(self) -> None:
        if self._sweep is None:
            # In a context of its own, because a request is the first to call this.
            self._sweep = self._loop.call_later(
                self._idle_seconds, self._drop_unconnected, context=Context()
            )

    def _drop_unconnected(self) -> None:
        """Drop the destinations whose last connection was closed as idle."""
        self._sweep = None
        self._drop(
            [
                one
                for one in self.by_destination
                if not self._is_busy(one) and self._is_unconnected(one)
            ]
        )
        self._replaced.intersection_update(
            [one for one in self._replaced if one.connections or one.dialling]
        )
        if self.by_destination or self._replaced:
            self._sweep_later()

    def _is_unconnected(self, destination: Destination) -> bool:
        return not self.by_destination[destination].transport.connections
