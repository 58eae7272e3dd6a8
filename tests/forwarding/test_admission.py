"""Admission: places, a fair queue, a window; in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastapi_proxy_di.errors import ClientDisconnected, LimitExceeded
from fastapi_proxy_di.forwarding.admission import Admission
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.failure_log import FailureLog
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.health.slow_start import SlowStart
from fastapi_proxy_di.health.thresholds import Threshold
from fastapi_proxy_di.settings import EjectionSettings, LimitSettings
from fastapi_proxy_di.supervision.events import Event, Events, LimitHit
from fastapi_proxy_di.supervision.supervisor import Supervisor
from tests.forwarding.samples import watched_exchange
from tests.pools.samples import pool_of
from tests.support.virtual_time import run_virtually


class Door:
    """An admission, and the requests that ask for a place."""

    def __init__(self, **limits: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.events: list[Event] = []
        self.entered: list[str] = []
        self.refused: dict[str, LimitExceeded] = {}
        events = Events()
        events.subscribe(self.events.append)
        pool = pool_of(1)
        self.supervisor = Supervisor(
            pool,
            Ejector(pool, EjectionSettings()),
            Threshold(2, 1),
            SlowStart(0),
            events,
            window=limits.pop("window", 15.0),
        )
        max_requests = limits.pop("max_requests", None)
        self.admission = Admission(self.supervisor, LimitSettings(**limits), max_requests)
        self.exchanges: dict[str, Exchange] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def arrive(self, *names: str) -> None:
        """Let requests arrive, all in one turn of the loop."""
        for name in names:
            exchange = self.exchanges[name] = watched_exchange(None)
            self.tasks[name] = self.loop.create_task(self._enter(name, exchange))
        await self.settle()

    async def settle(self) -> None:
        """Run everything that does not wait for time."""
        for _ in range(10):
            await asyncio.sleep(0)

    async def _enter(self, name: str, exchange: Exchange) -> None:
        try:
            await self.admission.enter(exchange)
            self.entered.append(name)
        except LimitExceeded as error:
            self.refused[name] = error
        finally:
            assert exchange.watcher.end(exchange) is None

    def refusal(self, name: str) -> LimitExceeded:
        """Give the reason of a request's refusal."""
        return self.refused[name]

    @property
    def counts(self) -> tuple[int, int]:
        """Give the numbers of requests in flight and waiting."""
        return self.admission.in_flight, self.admission.waiting


def test_admission_admits_up_to_the_limit() -> None:
    """One more request is refused at once, until another one ends."""

    async def scenario() -> Door:
        door = Door(max_in_flight=2)
        await door.arrive("a", "b", "c")
        door.admission.leave()
        await door.arrive("d")
        return door

    door = run_virtually(scenario())

    assert door.entered == ["a", "b", "d"]
    assert str(door.refusal("c")) == "limits.max_in_flight of billing is reached"
    assert (door.refusal("c").status, door.refusal("c").retry_after) == (503, 1.0)
    assert door.events == [LimitHit("billing", None, "limits.max_in_flight")]


def test_each_refusal_is_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    """By the record of the event, or within a number, however far apart they come."""

    async def scenario() -> None:
        door, log = Door(max_in_flight=1), FailureLog("billing")
        await door.arrive("held")
        for seconds in (0, 9, 10, 30, 3, 4):
            await asyncio.sleep(seconds)
            await door.arrive("a")
            log.failed(door.refusal("a"))
        log.close()

    run_virtually(scenario())

    event = "billing is at its limit (limits.max_in_flight)"
    assert caplog.messages == [
        event,
        "billing: 1 × refused by limits.max_in_flight in 10 s",
        event,
        event,
        "billing: 2 × refused by limits.max_in_flight in 7 s",
    ]


def test_admission_queue_is_fair_and_bounded() -> None:
    """First come, first served; a request beyond the queue's length is refused."""

    async def scenario() -> Door:
        door = Door(max_in_flight=1, queue=2, queue_timeout=60)
        await door.arrive("a", "b", "c", "d")
        counts = [door.counts]
        for _ in range(3):
            door.admission.leave()
            await door.settle()
            counts.append(door.counts)
        assert counts == [(1, 2), (1, 1), (1, 0), (0, 0)]
        return door

    door = run_virtually(scenario())

    assert door.entered == ["a", "b", "c"]
    assert door.refusal("d").retry_after == 60


def test_admission_gives_a_free_place_to_the_queue() -> None:
    """A new request of the same moment does not overtake the queue."""

    async def scenario() -> Door:
        door = Door(max_in_flight=1, queue=5, queue_timeout=60)
        await door.arrive("a", "b")
        door.admission.leave()
        await door.arrive("c")
        return door

    door = run_virtually(scenario())

    assert door.entered == ["a", "b"]


def test_admission_queue_has_a_timeout() -> None:
    """After ``queue_timeout`` the place in the queue is free again."""

    async def scenario() -> tuple[Door, float]:
        door = Door(max_in_flight=1, queue=1, queue_timeout=3)
        await door.arrive("a", "b")
        began = door.loop.time()
        await asyncio.wait({door.tasks["b"]})
        waited = door.loop.time() - began
        await door.arrive("c")
        assert door.counts == (1, 1)
        door.admission.leave()
        await door.settle()
        return door, waited

    door, waited = run_virtually(scenario())

    assert waited == pytest.approx(3)
    assert door.refusal("b").retry_after == 3
    assert door.entered == ["a", "c"]


def test_admission_removes_a_request_whose_client_left() -> None:
    """At once; the next request moves up."""

    async def scenario() -> Door:
        door = Door(max_in_flight=1, queue=2, queue_timeout=60)
        await door.arrive("a", "b", "c")
        door.exchanges["b"].interrupt(ClientDisconnected())
        await door.settle()
        assert door.counts == (1, 1)
        door.admission.leave()
        await door.settle()
        return door

    door = run_virtually(scenario())

    assert door.entered == ["a", "c"]
    assert isinstance(door.tasks["b"].exception(), ClientDisconnected)
    assert door.counts == (1, 0)


@pytest.mark.parametrize("first", ["place", "end"])
@pytest.mark.parametrize("cancelled", [False, True])
def test_admission_passes_on_a_place_of_an_ended_request(cancelled: bool, first: str) -> None:
    """The request ended in the same turn of the loop, just before or just after."""

    async def scenario() -> Door:
        door = Door(max_in_flight=1, queue=2, queue_timeout=60)
        await door.arrive("a", "b", "c")
        if first == "place":
            door.admission.leave()
        if cancelled:
            door.tasks["b"].cancel()
        else:
            door.exchanges["b"].interrupt(ClientDisconnected())
        if first == "end":
            door.admission.leave()
        await door.settle()
        return door

    door = run_virtually(scenario())

    assert door.entered == ["a", "c"]
    assert door.counts == (1, 0)


def test_admission_of_an_ended_exchange_takes_no_place() -> None:
    """The client disconnected before the request came to the queue."""

    async def scenario() -> Door:
        door = Door(max_in_flight=1, queue=2, queue_timeout=60)
        await door.arrive("a")
        exchange = watched_exchange(None)
        exchange.interrupt(ClientDisconnected())
        with pytest.raises(ClientDisconnected):
            await door.admission.enter(exchange)
        return door

    assert run_virtually(scenario()).counts == (1, 0)


def test_admission_counts_by_the_window() -> None:
    """Over ``max_requests`` 503 until the window turns, with the time in Retry-After."""

    async def scenario() -> Door:
        door = Door(max_requests=2, window=15.0)
        await door.arrive("a", "b")
        door.admission.leave()
        door.admission.leave()
        await asyncio.sleep(5)
        await door.arrive("c")
        await asyncio.sleep(10.1)
        await door.arrive("d")
        return door

    door = run_virtually(scenario())

    assert door.entered == ["a", "b", "d"]
    assert str(door.refusal("c")) == "max_requests of billing is reached"
    assert door.refusal("c").retry_after == pytest.approx(10)
    assert door.events == [LimitHit("billing", None, "max_requests")]


def test_admission_queue_does_not_outgrow_the_window() -> None:
    """Waiting requests count when they enter; the rest are refused then."""

    async def scenario() -> Door:
        door = Door(max_in_flight=1, queue=5, queue_timeout=10, max_requests=2)
        await door.arrive("a", "b", "c", "d")
        door.admission.leave()
        await door.settle()
        door.admission.leave()
        await door.settle()
        return door

    door = run_virtually(scenario())

    assert door.entered == ["a", "b"]
    assert str(door.refusal("c")) == str(door.refusal("d")) == "max_requests of billing is reached"
    assert door.counts == (0, 0)


def test_admission_at_saturation_is_one_event() -> None:
    """It refuses and admits in turn; one event reports that."""

    async def scenario() -> Door:
        door = Door(max_in_flight=1)
        await door.arrive("first")
        for number in range(50):
            await door.arrive(f"refused {number}")
            door.admission.leave()
            await door.arrive(f"next {number}")
            await asyncio.sleep(0.5)
        return door

    door = run_virtually(scenario())

    assert len(door.entered) == 51
    assert len(door.events) == 1


class SharedWindow:
    """The requests of all processes: those that a test gives out."""

    def __init__(self) -> None:
        self.seconds_left = 7.0
        self.left = 0
        self.empty = False
        self.more = asyncio.Event()

    def full(self, limit: int) -> bool:
        """Whether nothing is left."""
        return self.empty and not self.left

    def take(self, limit: int) -> bool:
        """Take one."""
        if not self.left:
            return False
        self.left -= 1
        return True

    async def fetched(self) -> None:
        """Wait for more."""
        await self.more.wait()


def test_requests_wait_for_the_block_of_a_shared_window() -> None:
    """One that leaves or is refused gives its place back; nothing is asked without a limit."""

    async def check() -> None:
        door = Door(max_requests=100, max_in_flight=2)
        shared = door.admission.shared = SharedWindow()
        await door.arrive("a", "b")
        assert door.counts == (2, 0)
        door.tasks["a"].cancel()
        await door.settle()
        assert door.counts == (1, 0)
        await door.arrive("c")

        shared.left, shared.empty = 1, True
        shared.more.set()
        await door.settle()

        assert door.entered == ["b"]
        assert door.refusal("c").retry_after == 7.0
        assert door.counts == (1, 0)
        await door.arrive("d")
        assert "max_requests" in str(door.refusal("d"))

        door.admission.configure(LimitSettings(max_in_flight=2), None)
        await door.arrive("e")
        assert door.entered == ["b", "e"]

    run_virtually(check())
