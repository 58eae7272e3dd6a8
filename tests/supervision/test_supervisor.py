"""Supervisor: timers that change a pool by themselves, and one event per change of state."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fastapi_proxy_di.balancing.first import First
from fastapi_proxy_di.balancing.selection import select
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.health.slow_start import SlowStart
from fastapi_proxy_di.health.thresholds import Threshold
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import EjectionSettings
from fastapi_proxy_di.supervision.events import (
    DestinationDown,
    DestinationDraining,
    DestinationEjected,
    DestinationReadmitted,
    DestinationUndrained,
    DestinationUp,
    Event,
    Events,
    LimitHit,
    PanicEnded,
    PanicStarted,
)
from fastapi_proxy_di.supervision.supervisor import LIMIT_QUIET_SECONDS, Supervisor
from tests.pools.samples import pool_of, settings_of
from tests.support.virtual_time import run_virtually


class Kept:
    """A supervisor over a pool, and everything it has told."""

    def __init__(
        self, pool: Pool, *, slow_start: float = 0, window: float = 15, **ejection: Any
    ) -> None:
        self.pool = pool
        self.told: list[Event] = []
        self.ejector = Ejector(pool, EjectionSettings(**ejection))
        events = Events()
        events.subscribe(self.told.append)
        self.supervisor = Supervisor(
            pool,
            self.ejector,
            Threshold(fall=2, rise=1),
            SlowStart(slow_start),
            events,
            window=window,
        )

    def __getitem__(self, index: int) -> Destination:
        return self.pool.destinations[index]

    def probe(self, index: int, *results: bool) -> None:
        """Let probes of one destination come back."""
        for ok in results:
            self.supervisor.probed(self[index], ok, 5.0 if ok else None, "" if ok else "status 503")

    def eject(self, index: int) -> None:
        """Fail one destination until it is out."""
        for _ in range(5):
            self.supervisor.failed(self[index], "connect")

    def take(self) -> list[type[Event]]:
        """What was told since the last time."""
        told, self.told[:] = [type(event) for event in self.told], []
        return told


Scenario = Callable[[], Coroutine[Any, Any, None]]


def virtually(scenario: Scenario) -> Callable[[], None]:
    """Make a test of a coroutine that runs in virtual time."""

    def test() -> None:
        run_virtually(scenario())

    test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__
    return test


@virtually
async def test_supervisor_tells_down_and_up_once() -> None:
    """The flip is an event, the results that confirm it are not."""
    kept = Kept(pool_of(2))
    kept.probe(0, False, False, False)
    kept.probe(1, True, True)
    down = kept.told[0]
    kept.probe(0, True, True)

    assert down == DestinationDown("billing", kept[0].url, "status 503")
    assert kept.take() == [DestinationDown, DestinationUp]
    assert kept[0].latency_ms == 5.0


@virtually
async def test_supervisor_readmits_when_the_time_is_over() -> None:
    """Without anybody asking, at the second it was to end."""
    kept = Kept(pool_of(3))
    kept.eject(0)
    await asyncio.sleep(29.9)
    before = kept.take()
    await asyncio.sleep(0.2)

    assert before == [DestinationEjected]
    assert kept.take() == [DestinationReadmitted]
    assert kept[0].available


@virtually
async def test_supervisor_readmits_each_at_its_own_time() -> None:
    """The timer always waits for the nearest end."""
    kept = Kept(pool_of(6))
    kept.eject(0)
    await asyncio.sleep(10)
    kept.eject(1)
    await asyncio.sleep(20.1)
    first = [destination.available for destination in kept.pool.destinations[:2]]
    await asyncio.sleep(10)

    assert first == [True, False]
    assert kept[1].available


@virtually
async def test_supervisor_readmits_on_a_good_probe() -> None:
    """The probe ends the ejection, the timer then finds nothing to do."""
    kept = Kept(pool_of(3))
    kept.eject(0)
    kept.probe(0, True)
    await asyncio.sleep(60)

    assert kept.take() == [DestinationEjected, DestinationReadmitted]


@virtually
async def test_supervisor_honours_a_cool_down() -> None:
    """Retry-After takes the destination out for its time."""
    kept = Kept(pool_of(3), respect_retry_after=True)
    kept.supervisor.cool_down(kept[0], 7)
    event = kept.told[0]
    await asyncio.sleep(7.1)

    assert event == DestinationEjected("billing", kept[0].url, 7.0, "retry_after")
    assert kept.take() == [DestinationEjected, DestinationReadmitted]


@virtually
async def test_supervisor_lets_no_probe_end_a_cool_down() -> None:
    """A rate limit leaves health checks alone; the next ejection is an ordinary one again."""
    kept = Kept(pool_of(3), respect_retry_after=True)
    kept.supervisor.cool_down(kept[0], 60)
    await asyncio.sleep(30)
    kept.probe(0, True, True)
    cooling = kept.take()
    await asyncio.sleep(30.1)
    over = kept.take()
    kept.eject(0)
    kept.probe(0, True)

    assert cooling == [DestinationEjected]
    assert over == [DestinationReadmitted]
    assert kept.take() == [DestinationEjected, DestinationReadmitted]


@virtually
async def test_supervisor_tells_drain_and_undrain_once() -> None:
    """Doing it twice is telling it once."""
    kept = Kept(pool_of(2))
    changes = [
        kept.supervisor.drain(kept[0]),
        kept.supervisor.drain(kept[0]),
        kept.supervisor.undrain(kept[0]),
        kept.supervisor.undrain(kept[0]),
    ]

    assert changes == [True, False, True, False]
    assert kept.take() == [DestinationDraining, DestinationUndrained]


@virtually
async def test_supervisor_tells_panic_on_and_off() -> None:
    """The last one down turns panic on, the first one up turns it off."""
    kept = Kept(pool_of(2))
    kept.probe(0, False)
    kept.probe(1, False)
    on = kept.take()
    kept.probe(1, True)

    assert on == [DestinationDown, DestinationDown, PanicStarted]
    assert kept.take() == [DestinationUp, PanicEnded]


@virtually
async def test_supervisor_tells_panic_that_a_replacement_ends() -> None:
    """A new destination is taken for healthy."""
    kept = Kept(pool_of(1))
    kept.probe(0, False)
    kept.take()
    kept.supervisor.replace([settings_of(0), settings_of(1)])

    assert kept.take() == [PanicEnded]


@virtually
async def test_supervisor_ramps_a_destination_that_came_back() -> None:
    """A tenth of the weight at first, the whole at the end, then no more timers."""
    kept = Kept(pool_of(3, weight=10), slow_start=20)
    kept.probe(0, False)
    at_rest = kept[0].weight
    kept.probe(0, True)
    weights = [kept[0].weight]
    for _ in range(4):
        await asyncio.sleep(5.01)
        weights.append(kept[0].weight)

    assert at_rest == 10
    assert weights == [1, 2, 5, 7, 10]


@virtually
async def test_supervisor_ramps_a_readmitted_destination() -> None:
    """Readmission by time is a return as well."""
    kept = Kept(pool_of(3), slow_start=20)
    kept.eject(0)
    await asyncio.sleep(30.1)
    weight = kept[0].weight
    await asyncio.sleep(21)

    assert weight == 0.1
    assert kept[0].weight == 1


@virtually
async def test_supervisor_ramps_two_with_one_timer() -> None:
    """The second return does not disturb the first, and is a step late at most."""
    kept = Kept(pool_of(4), slow_start=20)
    for index in (0, 1):
        kept.probe(index, False)
    kept.probe(0, True)
    await asyncio.sleep(10.01)
    kept.probe(1, True)
    weights = (kept[0].weight, kept[1].weight)
    await asyncio.sleep(10.01)
    later = (kept[0].weight, kept[1].weight)
    await asyncio.sleep(12)

    assert weights == (0.5, 0.1)
    assert later == (1, 0.4)
    assert kept[1].weight == 1


@virtually
async def test_supervisor_goes_on_ramping_through_a_replacement() -> None:
    """New settings do not give the full weight early."""
    kept = Kept(pool_of(2), slow_start=20)
    kept.probe(0, False)
    kept.probe(0, True)
    kept.supervisor.replace([settings_of(0, weight=5), settings_of(1)])

    assert kept[0].weight == 0.5


@virtually
async def test_supervisor_tells_the_ejection_windows_the_time() -> None:
    """Successes of ten minutes ago do not outweigh the failures of now."""
    kept = Kept(pool_of(3), consecutive=1000)
    for _ in range(1000):
        kept.ejector.succeeded(kept[0])
    await asyncio.sleep(600)
    for _ in range(7):
        kept.ejector.succeeded(kept[0])
    await asyncio.sleep(1)
    for _ in range(3):
        kept.supervisor.failed(kept[0], "connect")

    assert kept.take() == [DestinationEjected]


@virtually
async def test_supervisor_turns_the_window() -> None:
    """Counts of destinations and upstream begin anew."""
    kept = Kept(pool_of(2), window=15)
    kept[0].begin()
    kept.supervisor.requests_in_window = 1
    await asyncio.sleep(5)
    left = kept.supervisor.window_left
    await asyncio.sleep(10.1)

    assert left == pytest.approx(10)
    assert (kept[0].requests_in_window, kept.supervisor.requests_in_window) == (0, 0)


@virtually
async def test_supervisor_takes_another_window() -> None:
    """It counts from the change; the same one again changes nothing."""
    kept = Kept(pool_of(1), window=15)
    await asyncio.sleep(5)
    kept.supervisor.set_window(15)
    same = kept.supervisor.window_left
    kept.supervisor.set_window(100)
    kept[0].begin()
    await asyncio.sleep(99)
    held = kept[0].requests_in_window
    await asyncio.sleep(1.1)

    assert same == pytest.approx(10)
    assert (held, kept[0].requests_in_window) == (1, 0)


@virtually
async def test_supervisor_tells_a_limit_once_until_it_is_quiet() -> None:
    """At saturation it refuses all the time; that is one change of state."""
    kept = Kept(pool_of(1))
    for _ in range(100):
        kept.supervisor.limit_hit("max_requests")
        await asyncio.sleep(1)
    once = list(kept.told)
    await asyncio.sleep(LIMIT_QUIET_SECONDS)
    kept.supervisor.limit_hit("max_requests")

    assert once == [LimitHit("billing", None, "max_requests")]
    assert len(kept.told) == 2


@virtually
async def test_supervisor_tells_which_limit_of_a_destination_was_hit() -> None:
    """By requests at once, or by requests in the window."""
    kept = Kept(
        Pool(
            "billing",
            [settings_of(0, max_in_flight=1), settings_of(1, max_requests=1), settings_of(2)],
            panic=True,
        )
    )
    for _ in range(3):
        picked, full = select(First(), kept.pool)
        kept.supervisor.limits_reached(full)
        assert picked is not None
        picked.begin()
    kept[0].end()
    kept[0].begin()
    kept.supervisor.limits_reached(select(First(), kept.pool)[1])

    assert kept.told == [LimitHit("billing", kept[0].url, "max_in_flight")]

    kept.supervisor.drain(kept[0])
    kept.supervisor.limits_reached(select(First(), kept.pool)[1])

    assert kept.told[-1] == LimitHit("billing", kept[1].url, "max_requests")


@virtually
async def test_supervisor_forgets_limits_of_removed_destinations() -> None:
    """One that comes back under the same address begins anew."""
    kept = Kept(pool_of(2, max_in_flight=1))
    kept.supervisor.limit_hit("max_in_flight", kept[0])
    kept.supervisor.replace([settings_of(1, max_in_flight=1)])
    kept.supervisor.replace([settings_of(0, max_in_flight=1)])
    kept.supervisor.limit_hit("max_in_flight", kept[0])

    assert kept.take() == [LimitHit, DestinationDraining, DestinationDraining, LimitHit]


@virtually
async def test_supervisor_takes_all_for_healthy_without_probes() -> None:
    """When probes are turned off nobody could ever say otherwise."""
    kept = Kept(pool_of(2))
    kept.probe(0, False)
    kept.probe(1, True)
    kept.take()
    kept.supervisor.unprobed()

    assert kept.take() == [DestinationUp]
    observed = kept.supervisor.threshold.has_observed
    assert [observed(one) for one in kept.pool.destinations] == [False, False]


@virtually
async def test_supervisor_leaves_no_timer_behind() -> None:
    """After ``close`` nothing changes by itself any more."""
    kept = Kept(pool_of(4), slow_start=20)
    kept.probe(1, False)
    kept.probe(1, True)
    kept.eject(0)
    kept[2].begin()
    kept.supervisor.close()
    await asyncio.sleep(1000)

    assert not kept[0].available
    assert kept[1].weight == 0.1
    assert kept[2].requests_in_window == 1


@virtually
async def test_supervisor_survives_a_failing_listener() -> None:
    """What the user's code raises does not stop a change of state."""
    kept = Kept(pool_of(3))

    def fail(event: Event) -> None:
        raise RuntimeError("broken")

    kept.supervisor._events.subscribe(fail)
    kept.eject(0)
    await asyncio.sleep(31)

    assert kept.take() == [DestinationEjected, DestinationReadmitted]
