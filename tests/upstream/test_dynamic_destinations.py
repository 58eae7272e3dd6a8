"""Dynamic destinations: their number is bounded, idle ones go."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from fastapi_proxy_di.errors import LimitExceeded, UpstreamClosed, UpstreamConnectError
from fastapi_proxy_di.settings import LimitSettings
from fastapi_proxy_di.transport.factory import TransportFactory
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
        self.dialling = False
        self.closed = False
        self.retired = False
        self.limits: LimitSettings | None = None

    def retire(self) -> None:
        self.retired = True

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed = True


class Made:
    """Destinations with a bound, and their transports, which it makes as a factory."""

    def __init__(self, most: int = 2, idle_seconds: float = 4.0) -> None:
        self.transports: list[FakeTransport] = []
        self.hits: list[str] = []
        self.different: set[str] = set()
        self.limits = LimitSettings(dynamic_destinations=most, idle_seconds=idle_seconds)
        self.destinations = DynamicDestinations("billing", self.limits, self._factory, self._hit)

    @property
    def _factory(self) -> TransportFactory:
        return cast("TransportFactory", self)

    def make(self, address: Address) -> FakeTransport:
        self.transports.append(FakeTransport(address))
        return self.transports[-1]

    def replaces(self, other: object, address: Address) -> bool:
        assert other is self
        return address.url in self.different

    def configure(self, transport: FakeTransport) -> None:
        transport.limits = self.limits

    def use(self, *, replaces: bool = False, **limits: float) -> None:
        """Go by other limits."""
        self.limits = self.limits.model_copy(update=limits)
        self.destinations.use(self.limits, self._factory, replaces=replaces)

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


async def test_idle_ones_are_dropped_when_none_is_allowed_any_more() -> None:
    """Those in use stay, and keep no connection after their last request, until there is a use."""
    made = Made(most=4)
    made.destinations.hold(at("a"))
    made.destinations.release(made.destinations.hold(at("b")))

    made.destinations.retire()
    made.destinations.hold(at("late"))

    assert [one.url for one in made.destinations.by_destination] == ["http://a", "http://late"]
    assert [one.retired for one in made.transports] == [True, False, True]
    made.use(replaces=True)
    made.destinations.hold(at("again"))
    assert [one.retired for one in made.transports[3:]] == [False, False, False]
    await made.destinations.aclose()


async def test_all_stay_under_other_limits() -> None:
    """With their connections, which go by the new limits."""
    made = Made(most=3)
    for host in ("a", "b", "c"):
        made.destinations.release(made.destinations.hold(at(host)))
    held = made.destinations.hold(at("a"))

    made.use(idle_seconds=9.0)
    assert made.destinations.hold(at("a")) is held
    assert len(made.transports) == len(made.destinations) == 3
    assert {one.limits for one in made.transports} == {made.limits}
    made.use(dynamic_destinations=2)
    assert [one.url for one in made.destinations.by_destination] == ["http://a", "http://c"]
    await made.destinations.aclose()


async def test_lower_limit_holds_once_fewer_are_in_use() -> None:
    """One that becomes idle makes no room as long as there are too many."""
    made = Made(most=3)
    held = [made.destinations.hold(at(host)) for host in ("a", "b", "c")]
    made.use(dynamic_destinations=1)
    made.destinations.release(held[0])

    with pytest.raises(LimitExceeded):
        made.destinations.hold(at("d"))

    made.destinations.release(held[1])
    made.destinations.release(held[2])
    made.destinations.hold(at("d"))
    assert [one.url for one in made.destinations.by_destination] == ["http://d"]
    await made.destinations.aclose()


def test_other_connections_are_made_for_those_in_use() -> None:
    """The former ones are counted until the last is closed; idle destinations are dropped."""

    async def run() -> None:
        made = Made(idle_seconds=1)
        made.different = {"http://a", "http://b"}
        first = made.destinations.hold(at("a"))
        first.in_flight = 1
        made.destinations.release(made.destinations.hold(at("b")))
        made.transports[0].connections = 1

        made.use()

        assert list(made.destinations.by_destination) == [first]
        assert made.destinations.by_destination[first].transport is made.transports[2]
        assert [one.retired for one in made.transports] == [True, False, False]
        assert made.destinations.numbers() == (1, 1, 0)
        first.in_flight = made.transports[0].connections = 0
        made.destinations.release(first)
        await asyncio.sleep(2.5)
        assert made.destinations.numbers() == (0, 0, 0)
        assert len(made.destinations) == 0
        await made.destinations.aclose()

    run_virtually(run())


async def test_former_connections_end_with_the_upstream() -> None:
    """Also those of a request that is under way."""
    made = Made()
    made.destinations.hold(at("a")).in_flight = 1
    made.use(replaces=True)

    await made.destinations.aclose()

    assert made.closed == ["http://a", "http://a"]


def test_shorter_idle_time_holds_at_once() -> None:
    """The look that was due in an hour is made by the new time."""

    async def run() -> None:
        made = Made(idle_seconds=3600)
        made.destinations.release(made.destinations.hold(at("a")))
        made.use(idle_seconds=2.0)
        await asyncio.sleep(2.1)
        assert len(made.destinations) == 0
        await made.destinations.aclose()

    run_virtually(run())


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
