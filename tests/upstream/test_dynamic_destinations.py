"""Dynamic destinations: their number is bounded, idle ones go."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from fastapi_proxy_di.errors import LimitExceeded, UpstreamClosed, UpstreamConnectError
from fastapi_proxy_di.settings import LimitSettings
from fastapi_proxy_di.transport.protocol import Transport
from fastapi_proxy_di.upstream.dynamic_destinations import LIMIT, DynamicDestinations
from fastapi_proxy_di.wire.addresses import Address
from fastapi_proxy_di.wire.dynamic_address import dynamic_address
from tests.support.virtual_time import run_virtually


class FakeTransport:
    """A transport whose connections are numbers."""

    def __init__(self, address: Address) -> None:
        self.url = address.url
        self.connections = 0
        self.idle = 0
        self.closed = False
        self.retired = False

    def retire(self) -> None:
        self.retired = True

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed = True


class Made:
    """Destinations with a bound, and their transports."""

    def __init__(self, most: int = 2, idle_seconds: float = 4.0) -> None:
        self.transports: list[FakeTransport] = []
        self.hits: list[str] = []
        limits = LimitSettings(dynamic_destinations=most, idle_seconds=idle_seconds)
        self.destinations = DynamicDestinations("billing", limits, self._make, self._hit)

    def _make(self, address: Address) -> Transport:
        self.transports.append(FakeTransport(address))
        return cast("Transport", self.transports[-1])

    def _hit(self, limit: str) -> bool:
        self.hits.append(limit)
        return True

    @property
    def closed(self) -> list[str]:
        """Addresses of the closed transports."""
        return [one.url for one in self.transports if one.closed]


def at(host: str) -> Address:
    """The address of a host."""
    return dynamic_address(f"http://{host}")


async def test_destination_is_made_once() -> None:
    """For all spellings of its address."""
    made = Made()
    first = made.destinations.hold(at("a"))

    assert made.destinations.hold(at("A:80")) is first
    assert first.url == "http://a"
    assert len(made.destinations) == len(made.transports) == 1
    await made.destinations.aclose()


async def test_longest_idle_one_makes_room() -> None:
    """Not one that is held, nor one with a request."""
    made = Made(most=3)
    held = made.destinations.hold(at("held"))
    busy = made.destinations.hold(at("busy"))
    busy.in_flight = 1
    made.destinations.release(busy)
    idle = made.destinations.hold(at("idle"))
    made.destinations.release(idle)

    made.destinations.hold(at("new"))

    assert idle.removed
    assert {one.url for one in made.destinations.by_destination} == {
        "http://held",
        "http://busy",
        "http://new",
    }
    assert not held.removed
    await made.destinations.aclose()
    assert made.closed == [one.url for one in made.transports]


async def test_order_of_use_decides_which_one_goes() -> None:
    """One that was asked for again is no longer the first."""
    made = Made(most=2)
    for host in ("a", "b", "a"):
        made.destinations.release(made.destinations.hold(at(host)))

    made.destinations.hold(at("c"))

    assert {one.url for one in made.destinations.by_destination} == {"http://a", "http://c"}
    await made.destinations.aclose()


async def test_too_many_at_once_are_refused() -> None:
    """503, which names the setting and when trying again makes sense."""
    made = Made(most=1)
    made.destinations.hold(at("a"))

    with pytest.raises(
        LimitExceeded, match="of billing is reached, and no address is idle"
    ) as raised:
        made.destinations.hold(at("b"))

    assert (raised.value.limit, raised.value.announced) == (LIMIT, True)
    assert (raised.value.status, raised.value.retry_after) == (503, 4.0)
    assert made.hits == [LIMIT]
    await made.destinations.aclose()


def test_idle_one_goes_with_its_last_connection() -> None:
    """The look for them repeats while there are any, and begins again with the next one."""

    async def run() -> None:
        made = Made(idle_seconds=0)
        first = made.destinations.hold(at("a"))
        second = made.destinations.hold(at("b"))
        made.transports[1].connections = made.transports[1].idle = 1
        made.destinations.release(second)
        await asyncio.sleep(1.1)
        assert len(made.destinations) == 2
        made.transports[1].connections = made.transports[1].idle = 0
        await asyncio.sleep(1.1)
        assert made.closed == ["http://b"]
        made.destinations.release(first)
        await asyncio.sleep(1.1)
        assert len(made.destinations) == 0
        assert made.closed == ["http://a", "http://b"]
        await asyncio.sleep(5)
        made.destinations.release(made.destinations.hold(at("c")))
        await asyncio.sleep(1.1)
        assert len(made.destinations) == 0
        await made.destinations.aclose()

    run_virtually(run())


async def test_numbers_are_sums() -> None:
    """Of requests, connections in use and idle ones."""
    made = Made()
    for host, in_flight in (("a", 2), ("b", 3)):
        made.destinations.hold(at(host)).in_flight = in_flight
    for transport in made.transports:
        transport.connections, transport.idle = 5, 1

    assert made.destinations.numbers() == (5, 8, 2)
    assert made.destinations.in_flight == 5
    await made.destinations.aclose()


async def test_idle_ones_are_dropped_when_the_rules_change() -> None:
    """Those in use stay, and keep no connection after their last request."""
    made = Made()
    made.destinations.hold(at("a"))
    made.destinations.release(made.destinations.hold(at("b")))

    made.destinations.retire()
    made.destinations.hold(at("late"))

    assert [one.url for one in made.destinations.by_destination] == ["http://a", "http://late"]
    assert [one.retired for one in made.transports] == [True, False, True]
    await made.destinations.aclose()


async def test_outage_of_an_address_goes_with_it() -> None:
    """Each has its own, and nobody can wait in it after the end."""
    made = Made(most=2)
    first, second = made.destinations.hold(at("a")), made.destinations.hold(at("b"))
    outage = made.destinations.outage_of(first)
    assert made.destinations.outage_of(second) is not outage
    made.destinations.release(first)
    made.destinations.hold(at("c"))
    with pytest.raises(KeyError):
        made.destinations.outage_of(first)

    await made.destinations.aclose()

    with pytest.raises(UpstreamClosed):
        await made.destinations.outage_of(second).turn(asyncio.get_running_loop().time() + 60)


async def test_nothing_is_made_after_the_end() -> None:
    """A request that comes late fails."""
    made = Made()
    await made.destinations.aclose()

    with pytest.raises(UpstreamConnectError, match="shut down"):
        made.destinations.hold(at("a"))
    assert made.transports == []
