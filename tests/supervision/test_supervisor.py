"""Supervisor: timers that change a pool, and one event per change of state.

Long because each timer and each event has a scenario of its own.
"""

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
from tests.support.requests_in_flight import begin
from tests.support.virtual_time import run_virtually


class Supervised:
    """A supervisor over a pool, and the events that it has emitted."""

    def __init__(
        self, pool: Pool, *, slow_start: float = 0, window: float = 15, **ejection: Any
    ) -> None:
        self.pool = pool
        self.emitted: list[Event] = []
        self.ejector = Ejector(pool, EjectionSettings(**ejection))
        events = Events()
        events.subscribe(self.emitted.append)
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
        """Apply probe results of one destination."""
        for ok in results:
            self.supervisor.probed(self[index], ok, 5.0 if ok else None, "" if ok else "status 503")

    def eject(self, index: int) -> None:
        """Fail one destination until it is ejected."""
        for _ in range(5):
            self.supervisor.failed(self[index], "connect")

    def take(self) -> list[type[Event]]:
        """Give the kinds of the events since the last call."""
        emitted, self.emitted[:] = [type(event) for event in self.emitted], []
        return emitted


Scenario = Callable[[], Coroutine[Any, Any, None]]


def virtually(scenario: Scenario) -> Callable[[], None]:
    """Make a test of a coroutine that runs in virtual time."""

    def test() -> None:
        run_virtually(scenario())

    test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__
    return test


@virtually
async def test_supervisor_emits_down_and_up_once() -> None:
    """Later results that confirm the change emit nothing."""
    run = Supervised(pool_of(2))
    run.probe(0, False, False, False)
    run.probe(1, True, True)
    down = run.emitted[0]
    run.probe(0, True, True)

    assert down == DestinationDown("billing", run[0].url, "status 503")
    assert run.take() == [DestinationDown, DestinationUp]
    assert run[0].latency_ms == 5.0


@virtually
async def test_supervisor_readmits_at_the_end_of_an_ejection() -> None:
    """By a timer, at the second of the end."""
    run = Supervised(pool_of(3))
    run.eject(0)
    await asyncio.sleep(29.9)
    before = run.take()
    await asyncio.sleep(0.2)

    assert before == [DestinationEjected]
    assert run.take() == [DestinationReadmitted]
    assert run[0].available


@virtually
async def test_supervisor_readmits_each_at_its_own_time() -> None:
    """The timer always waits for the next end."""
    run = Supervised(pool_of(6))
    run.eject(0)
    await asyncio.sleep(10)
    run.eject(1)
    await asyncio.sleep(20.1)
    first = [destination.available for destination in run.pool.destinations[:2]]
    await asyncio.sleep(10)

    assert first == [True, False]
    assert run[1].available


@virtually
async def test_supervisor_readmits_on_a_good_probe() -> None:
    """The probe ends the ejection, and the timer does nothing later."""
    run = Supervised(pool_of(3))
    run.eject(0)
    run.probe(0, True)
    await asyncio.sleep(60)

    assert run.take() == [DestinationEjected, DestinationReadmitted]


@virtually
async def test_supervisor_readmits_nothing_that_has_left() -> None:
    """A probe may end after its destination has left the pool."""
    run = Supervised(pool_of(3))
    run.eject(0)
    gone = run[0]
    run.supervisor.replace([run[1].settings, run[2].settings])
    run.take()
    run.supervisor.probed(gone, True, 5.0, "")

    assert run.take() == []
    assert gone.latency_ms is None


@virtually
async def test_supervisor_says_whether_a_readmitted_destination_is_up() -> None:
    """The end of an ejection is no good news while probes fail."""
    run = Supervised(pool_of(4))
    for number in (0, 1):
        run.eject(number)
    for _ in range(2):
        run.probe(1, False)
    await asyncio.sleep(31)

    up, down = run.emitted[-2:]
    assert (up.destination, up.detail()) == (run[0].url, "its time is over")
    assert down.detail() == "its time is over, but it is still down"


@virtually
async def test_supervisor_says_that_a_readmission_was_asked_for() -> None:
    """By an operator, before its time."""
    run = Supervised(pool_of(3))
    run.eject(0)
    run.supervisor.readmit(run[0])

    assert run.emitted[-1].detail() == "asked for"


@virtually
async def test_supervisor_ejects_for_a_cool_down() -> None:
    """Retry-After ejects the destination for its time."""
    run = Supervised(pool_of(3), respect_retry_after=True)
    run.supervisor.cool_down(run[0], 7)
    event = run.emitted[0]
    await asyncio.sleep(7.1)

    assert event == DestinationEjected("billing", run[0].url, 7.0, "retry_after")
    assert run.take() == [DestinationEjected, DestinationReadmitted]


@virtually
async def test_supervisor_lets_no_probe_end_a_cool_down() -> None:
    """A rate limit does not concern probes; the next ejection is an ordinary one again."""
    run = Supervised(pool_of(3), respect_retry_after=True)
    run.supervisor.cool_down(run[0], 60)
    await asyncio.sleep(30)
    run.probe(0, True, True)
    cooling = run.take()
    await asyncio.sleep(30.1)
    over = run.take()
    run.eject(0)
    run.probe(0, True)

    assert cooling == [DestinationEjected]
    assert over == [DestinationReadmitted]
    assert run.take() == [DestinationEjected, DestinationReadmitted]


@virtually
async def test_supervisor_emits_drain_and_undrain_once() -> None:
    """A second call changes nothing and emits nothing."""
    run = Supervised(pool_of(2))
    changes = [
        run.supervisor.drain(run[0]),
        run.supervisor.drain(run[0]),
        run.supervisor.undrain(run[0]),
        run.supervisor.undrain(run[0]),
    ]

    assert changes == [True, False, True, False]
    assert run.take() == [DestinationDraining, DestinationUndrained]


@virtually
async def test_supervisor_emits_the_start_and_end_of_panic() -> None:
    """Panic starts when the last one is down, and ends when the first one is up."""
    run = Supervised(pool_of(2))
    run.probe(0, False)
    run.probe(1, False)
    on = run.take()
    run.probe(1, True)

    assert on == [DestinationDown, DestinationDown, PanicStarted]
    assert run.take() == [DestinationUp, PanicEnded]


@virtually
async def test_supervisor_emits_the_end_of_panic_by_a_replacement() -> None:
    """A new destination begins healthy."""
    run = Supervised(pool_of(1))
    run.probe(0, False)
    run.take()
    run.supervisor.replace([settings_of(0), settings_of(1)])

    assert run.take() == [PanicEnded]


@virtually
async def test_supervisor_ramps_a_destination_that_came_back() -> None:
    """From a tenth of the weight to the whole, then without a timer."""
    run = Supervised(pool_of(3, weight=10), slow_start=20)
    run.probe(0, False)
    at_rest = run[0].weight
    run.probe(0, True)
    weights = [run[0].weight]
    for _ in range(4):
        await asyncio.sleep(5.01)
        weights.append(run[0].weight)

    assert at_rest == 10
    assert weights == [1, 2, 5, 7, 10]


@virtually
async def test_supervisor_ramps_a_readmitted_destination() -> None:
    """The end of an ejection is a return as well."""
    run = Supervised(pool_of(3), slow_start=20)
    run.eject(0)
    await asyncio.sleep(30.1)
    weight = run[0].weight
    await asyncio.sleep(21)

    assert weight == 0.1
    assert run[0].weight == 1


@virtually
async def test_supervisor_ramps_two_with_one_timer() -> None:
    """The second ramp does not disturb the first, and is at most a step late."""
    run = Supervised(pool_of(4), slow_start=20)
    for index in (0, 1):
        run.probe(index, False)
    run.probe(0, True)
    await asyncio.sleep(10.01)
    run.probe(1, True)
    weights = (run[0].weight, run[1].weight)
    await asyncio.sleep(10.01)
    later = (run[0].weight, run[1].weight)
    await asyncio.sleep(12)

    assert weights == (0.5, 0.1)
    assert later == (1, 0.4)
    assert run[1].weight == 1


@virtually
async def test_supervisor_keeps_the_ramp_through_a_replacement() -> None:
    """New settings do not give the full weight early."""
    run = Supervised(pool_of(2), slow_start=20)
    run.probe(0, False)
    run.probe(0, True)
    run.supervisor.replace([settings_of(0, weight=5), settings_of(1)])

    assert run[0].weight == 0.5


@virtually
async def test_supervisor_ticks_the_ejection_windows() -> None:
    """Successes of ten minutes ago do not hide the failures of now."""
    run = Supervised(pool_of(3), consecutive=1000)
    for _ in range(1000):
        run.ejector.succeeded(run[0])
    await asyncio.sleep(600)
    for _ in range(7):
        run.ejector.succeeded(run[0])
    await asyncio.sleep(1)
    for _ in range(3):
        run.supervisor.failed(run[0], "connect")

    assert run.take() == [DestinationEjected]


@virtually
async def test_supervisor_turns_the_window() -> None:
    """Destinations and upstream count from zero again."""
    run = Supervised(pool_of(2), window=15)
    begin(run[0])
    run.supervisor.requests_in_window = 1
    await asyncio.sleep(5)
    left = run.supervisor.window_left
    await asyncio.sleep(10.1)

    assert left == pytest.approx(10)
    assert (run[0].requests_in_window, run.supervisor.requests_in_window) == (0, 0)


@virtually
async def test_supervisor_changes_the_window() -> None:
    """It counts from the change; the same length changes nothing."""
    run = Supervised(pool_of(1), window=15)
    await asyncio.sleep(5)
    run.supervisor.set_window(15)
    same = run.supervisor.window_left
    run.supervisor.set_window(100)
    begin(run[0])
    await asyncio.sleep(99)
    held = run[0].requests_in_window
    await asyncio.sleep(1.1)

    assert same == pytest.approx(10)
    assert (held, run[0].requests_in_window) == (1, 0)


@virtually
async def test_supervisor_emits_a_limit_once_until_it_is_quiet() -> None:
    """At saturation the limit is hit all the time, which is one event."""
    run = Supervised(pool_of(1))
    for _ in range(100):
        run.supervisor.limit_hit("max_requests")
        await asyncio.sleep(1)
    once = list(run.emitted)
    await asyncio.sleep(LIMIT_QUIET_SECONDS)
    run.supervisor.limit_hit("max_requests")

    assert once == [LimitHit("billing", None, "max_requests")]
    assert len(run.emitted) == 2


@virtually
async def test_supervisor_names_the_limit_of_a_full_destination() -> None:
    """Requests at once, or requests in the window."""
    run = Supervised(
        Pool(
            "billing",
            [settings_of(0, max_in_flight=1), settings_of(1, max_requests=1), settings_of(2)],
            panic=True,
        )
    )
    for _ in range(3):
        picked, full = select(First(), run.pool)
        run.supervisor.limits_reached(full)
        assert picked is not None
        begin(picked)
    run[0].end()
    begin(run[0])
    run.supervisor.limits_reached(select(First(), run.pool)[1])

    assert run.emitted == [LimitHit("billing", run[0].url, "max_in_flight")]

    run.supervisor.drain(run[0])
    run.supervisor.limits_reached(select(First(), run.pool)[1])

    assert run.emitted[-1] == LimitHit("billing", run[1].url, "max_requests")


@virtually
async def test_supervisor_drops_the_limits_of_removed_destinations() -> None:
    """A new destination with the same address is reported again."""
    run = Supervised(pool_of(2, max_in_flight=1))
    run.supervisor.limit_hit("max_in_flight", run[0])
    run.supervisor.replace([settings_of(1, max_in_flight=1)])
    run.supervisor.replace([settings_of(0, max_in_flight=1)])
    run.supervisor.limit_hit("max_in_flight", run[0])

    assert run.take() == [LimitHit, DestinationDraining, DestinationDraining, LimitHit]


@virtually
async def test_supervisor_makes_all_healthy_without_probes() -> None:
    """When probes are turned off, no result could change the health later."""
    run = Supervised(pool_of(2))
    run.probe(0, False)
    run.probe(1, True)
    run.take()
    run.supervisor.unprobed()

    assert run.take() == [DestinationUp]
    observed = run.supervisor.threshold.has_observed
    assert [observed(one) for one in run.pool.destinations] == [False, False]


@virtually
async def test_supervisor_close_stops_all_timers() -> None:
    """After ``close`` nothing changes any more."""
    run = Supervised(pool_of(4), slow_start=20)
    run.probe(1, False)
    run.probe(1, True)
    run.eject(0)
    begin(run[2])
    run.supervisor.close()
    await asyncio.sleep(1000)

    assert not run[0].available
    assert run[1].weight == 0.1
    assert run[2].requests_in_window == 1


@virtually
async def test_supervisor_goes_on_after_a_failing_listener() -> None:
    """An exception in the user's code does not stop a change of state."""
    run = Supervised(pool_of(3))

    def fail(event: Event) -> None:
        raise RuntimeError("broken")

    run.supervisor._events.subscribe(fail)
    run.eject(0)
    await asyncio.sleep(31)

    assert run.take() == [DestinationEjected, DestinationReadmitted]


@virtually
async def test_supervisor_tells_when_the_first_cooling_destination_is_back() -> None:
    """Only while all that are not draining cool; further ones emit no second event."""
    run = Supervised(pool_of(3), respect_retry_after=True)
    run.supervisor.cool_down(run[0], 60)
    run.supervisor.cool_down(run[0], 70)
    run.supervisor.cool_down(run[0], 10)
    events = run.take()
    some = run.supervisor.cooling_left
    run.supervisor.cool_down(run[1], 20)
    run.supervisor.drain(run[2])
    left = run.supervisor.cooling_left
    await asyncio.sleep(20.1)

    assert events == [DestinationEjected]
    assert (some, left) == (None, pytest.approx(20))
    assert run[1].available
    assert not run[0].available
    assert run.supervisor.cooling_left is None


class Heard:
    """Records what a supervisor shares."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, object]] = []

    def failing(self, destination: Destination, reason: str) -> None:
        """Record a destination that fails."""
        self.told.append(("failing", destination.url, reason))

    def cooling(self, destination: Destination, seconds: float) -> None:
        """Record a Retry-After."""
        self.told.append(("cooling", destination.url, seconds))

    def readmitted(self, destination: Destination, reason: str) -> None:
        """Record the end of an ejection."""
        self.told.append(("readmitted", destination.url, reason))


@virtually
async def test_supervisor_shares_what_it_finds_and_not_what_it_follows() -> None:
    """Also a failure whose ejection ``max_share`` forbids, as others may see the same."""
    given = Supervised(pool_of(3), max_share=0.3, respect_retry_after=True)
    heard = given.supervisor.sharing = Heard()
    given.supervisor.follow_ejection(given[2], 30, "votes of 3 processes")
    given.supervisor.follow_readmission(given[2], "a good probe of another process")
    given.supervisor.follow_cool_down(given[2], 30)
    given.supervisor.follow_readmission(given[2], "asked for in another process")
    assert heard.told == []

    given.eject(0)
    given.eject(1)
    assert [one.ejected for one in given.pool.destinations] == [True, False, False]
    assert given.supervisor.failing(given[1])
    assert not given.supervisor.failing(given[2])
    given.probe(0, True)
    given.supervisor.cool_down(given[2], 5)
    given.supervisor.readmit(given[1])

    assert heard.told == [
        ("failing", given[0].url, "connect"),
        ("failing", given[1].url, "connect"),
        ("readmitted", given[0].url, "a good probe"),
        ("cooling", given[2].url, 5),
        ("readmitted", given[1].url, "asked for"),
    ]


@virtually
async def test_supervisor_follows_an_ejection_to_its_end() -> None:
    """Also beyond ``max_share``, no longer than ``max_time``, and instead of an end of its own."""
    given = Supervised(pool_of(4), base_time=10, max_time=40, max_share=0.25)
    given.eject(0)

    given.supervisor.follow_ejection(given[0], 20, "votes of 2 processes")
    given.supervisor.follow_ejection(given[1], 1000, "votes of 2 processes")
    await asyncio.sleep(15)
    assert given[0].ejected
    assert given[1].ejected
    await asyncio.sleep(6)
    assert not given[0].ejected
    assert given[1].ejected
    await asyncio.sleep(20)

    assert not given[1].ejected
    assert [
        (one.seconds, one.reason) for one in given.emitted if isinstance(one, DestinationEjected)
    ] == [(10, "connect"), (40, "votes of 2 processes")]


@virtually
async def test_supervisor_never_follows_an_ejection_of_the_last_one() -> None:
    """What is left in this process is used rather than nothing; nor with ejection turned off."""
    given = Supervised(pool_of(2))
    given.supervisor.follow_ejection(given[0], 20, "votes of 2 processes")
    given.supervisor.follow_ejection(given[1], 20, "votes of 2 processes")
    off = Supervised(pool_of(2), enabled=False)
    off.supervisor.follow_ejection(off[0], 20, "votes of 2 processes")

    assert [one.ejected for one in given.pool.destinations] == [True, False]
    assert off.take() == []


@virtually
async def test_supervisor_follows_the_health_that_another_process_found() -> None:
    """One result is enough, and a return ends the ejection, as a good probe does."""
    given = Supervised(pool_of(3))

    given.supervisor.follow_health(given[0], False, None, "status 503")
    assert given.emitted[0].detail() == "status 503"
    given.eject(1)
    given.supervisor.follow_health(given[1], True, 7.0, "")
    assert given.take() == [DestinationDown, DestinationEjected]
    assert given[1].latency_ms == 7
    given.supervisor.follow_health(given[1], False, None, "status 503")
    given.supervisor.follow_health(given[1], True, None, "")

    assert given.take() == [DestinationDown, DestinationReadmitted, DestinationUp]
    assert given.supervisor.threshold.has_observed(given[0])
    assert given.supervisor.threshold.failing(given[0])
    assert not given.supervisor.threshold.failing(given[1])
