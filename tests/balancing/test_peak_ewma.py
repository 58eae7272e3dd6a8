"""Policy peak_ewma: expected time to first byte, and the cases where a plain mean fails."""

from heapq import heappop, heappush
from random import Random

import pytest

from fastapi_proxy_di.balancing.peak_ewma import FAILURE_PENALTY_SECONDS, PeakEwma
from tests.balancing.drawing import picked, shares
from tests.pools.samples import destinations_of, pool_of, settings_of
from tests.support.requests_in_flight import begin


def test_peak_ewma_mean_rises_at_once_and_falls_slowly() -> None:
    """A slower sample replaces it, faster ones lower it by decay."""
    (destination,) = destinations_of(1)
    policy = PeakEwma(random=Random(1))
    policy.observe(destination, 0.010, False, 0.0)
    policy.observe(destination, 1.0, False, 1.0)

    assert policy.cost(destination) == pytest.approx(1.0)

    policy.observe(destination, 0.010, False, 11.0)

    assert policy.cost(destination) == pytest.approx(0.010 * 100**0.367879, rel=1e-4)


def test_peak_ewma_takes_zero_seconds_for_a_short_time() -> None:
    """A clock of whole milliseconds may measure zero."""
    (destination,) = destinations_of(1)
    policy = PeakEwma(random=Random(1))
    policy.observe(destination, 0.0, False, 0.0)
    policy.observe(destination, 0.0, False, 1.0)

    assert policy.cost(destination) == pytest.approx(1e-5)


@pytest.mark.parametrize("failed", [False, True])
def test_peak_ewma_uses_a_slow_destination_again_within_two_health_intervals(failed: bool) -> None:
    """After a fast 500 or 300 ms, without a probe: half the fair share within 30 s."""
    available = destinations_of(5)
    policy = PeakEwma(random=Random(1))
    policy.observe(available[0], 0.3, failed, 0.0)
    served = []
    for step in range(6000):
        now = step * 0.005
        picked = policy.pick(available)
        assert picked is not None
        policy.observe(picked, 0.003, False, now)
        served.append(picked)
    bad = served[:1000].count(available[0])

    assert bad == 0
    assert served[-500:].count(available[0]) >= 50


def test_peak_ewma_prefers_fast_responses() -> None:
    """Of two idle destinations the one that is ten times slower is never picked."""
    available = destinations_of(2)
    policy = PeakEwma(random=Random(1))
    policy.observe(available[0], 0.1, False, 0.0)
    policy.observe(available[1], 0.01, False, 0.0)

    assert shares(policy, available, 200) == [0, 1]


def test_peak_ewma_weighs_requests_in_flight() -> None:
    """Half the time with three times the load costs more."""
    available = destinations_of(2)
    policy = PeakEwma(random=Random(1))
    policy.observe(available[0], 0.01, False, 0.0)
    policy.observe(available[1], 0.02, False, 0.0)
    available[0].in_flight = 2

    assert picked(policy, available) is available[1]


def test_peak_ewma_fast_failures_do_not_attract_traffic() -> None:
    """An error in a millisecond counts as five seconds."""
    available = destinations_of(2)
    policy = PeakEwma(random=Random(1))
    policy.observe(available[0], 0.001, True, 0.0)
    policy.observe(available[1], 0.5, False, 0.0)

    assert policy.cost(available[0]) == pytest.approx(FAILURE_PENALTY_SECONDS)
    assert shares(policy, available, 200) == [0, 1]


def test_peak_ewma_tries_a_once_slow_destination_again() -> None:
    """Without samples its mean drifts to the typical one, until it is picked."""
    available = destinations_of(2)
    slow, fast = available
    policy = PeakEwma(random=Random(1))
    policy.observe(slow, 5.0, False, 0.0)
    now = 0.0
    while picked(policy, available) is not slow:
        now += 0.1
        policy.observe(fast, 0.01 + 0.001 * (int(now * 10) % 3), False, now)

        assert now < 120

    assert now > 20


def test_peak_ewma_hanging_destination_does_not_become_attractive() -> None:
    """It never gets cheaper than typical, so it has no more requests than the others."""
    available = destinations_of(5)
    hanging = available[0]
    policy = PeakEwma(random=Random(1))
    for destination in available:
        policy.observe(destination, 0.02, False, 0.0)
    now = 0.0
    for _ in range(5000):
        now += 0.05
        destination = picked(policy, available)
        begin(destination)
        if destination is not hanging:
            policy.observe(destination, 0.02, False, now)
            destination.end()

    assert hanging.in_flight <= 2


def test_peak_ewma_gives_a_new_destination_the_typical_mean() -> None:
    """It gets about its share."""
    known, new = destinations_of(2)
    policy = PeakEwma(random=Random(1))
    for step in range(500):
        policy.observe(known, 2.0, False, step / 10)

    assert policy.cost(new) == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("how", ["down", "ejected"])
def test_peak_ewma_does_not_use_a_mean_from_before_a_return(how: str) -> None:
    """A destination that comes back gets the typical one, as a new one does."""
    pool = pool_of(2)
    one, other = pool.destinations
    policy = PeakEwma(random=Random(1))
    policy.pick(pool.available)
    policy.observe(other, 0.02, False, 0.0)
    policy.observe(one, 0.001, True, 0.0)
    before = policy.cost(one)
    if how == "down":
        pool.set_health(one, False)
        pool.set_health(one, True)
    else:
        pool.eject(one, 30.0)
        pool.readmit(one)
    policy.pick(pool.available)
    returned = policy.cost(one)
    policy.observe(one, 0.5, False, 0.0)

    assert before == pytest.approx(FAILURE_PENALTY_SECONDS)
    assert returned < 0.1
    assert policy.cost(one) == pytest.approx(0.5)


def test_peak_ewma_drops_the_means_of_removed_destinations() -> None:
    """A pool whose addresses keep changing needs no more memory."""
    pool = pool_of(1)
    policy = PeakEwma(random=Random(1))
    for address in range(50):
        policy.observe(pool.destinations[0], 0.1, False, 0.0)
        pool.replace([settings_of(address + 1)])

    assert len(policy._means) <= 20


def requests_to_a_slow_destination(
    policy: PeakEwma, random: Random, usual: int, slower: int, during: int
) -> int:
    """Count what a destination gets after it has become slow.

    Five destinations, 120 requests a second at random times, on a clock of steps of a millisecond.

    Args:
        policy: The policy.
        random: The source of the times.
        usual: Milliseconds that a request takes.
        slower: Milliseconds that a request takes at the slow destination after two seconds.
        during: Milliseconds from then on in which its requests are counted.
    """
    available = destinations_of(5)
    slow = available[0]
    ends: list[tuple[int, int, int]] = []
    sent = 0
    for now in range(2000 + during):
        while ends and ends[0][0] <= now:
            _, number, began = heappop(ends)
            destination = available[number % 10]
            destination.end()
            policy.ended(destination, number)
            policy.observe(destination, (now - began) / 1000, False, now / 1000)
        if random.random() < 0.12:
            destination = picked(policy, available)
            begin(destination)
            number = now * 10 + available.index(destination)
            policy.began(destination, number, now / 1000)
            late = destination is slow and now >= 2000
            sent += late
            heappush(ends, (now + (slower if late else usual), number, now))
    return sent


def test_peak_ewma_sends_a_handful_to_a_destination_that_has_just_become_slow() -> None:
    """What is under way for long tells it, not only the first slow response."""
    counts = [
        requests_to_a_slow_destination(PeakEwma(random=Random(seed)), Random(-seed), 7, 500, 500)
        for seed in range(40)
    ]

    assert max(counts) <= 4
    assert sum(counts) <= 1.25 * len(counts)  # in-flight counts alone let 1.85 through


def test_peak_ewma_keeps_away_from_a_slow_destination_for_seconds() -> None:
    """As in the outage drill: 300 ms for four seconds, so the p99 is that of the others."""
    counts = [
        requests_to_a_slow_destination(PeakEwma(random=Random(seed)), Random(-seed), 3, 300, 4200)
        for seed in range(20)
    ]

    assert max(counts) <= 2  # of 500 requests, of which the slowest five are above the p99


def test_peak_ewma_takes_the_age_of_the_oldest_request_under_way() -> None:
    """Requests end in any order; an end that is not known, or that comes twice, is no fault."""
    (destination,) = destinations_of(1)
    policy = PeakEwma(random=Random(1))
    policy.ended(destination, "unknown")
    policy.observe(destination, 0.01, False, 0.0)
    for attempt, now in (("a", 1.0), ("b", 1.5), ("c", 1.75)):
        policy.began(destination, attempt, now)
    ages = [policy.cost(destination)]
    for attempt in ("b", "a", "a", "c"):
        policy.ended(destination, attempt)
        ages.append(policy.cost(destination))

    assert ages[:2] == [0.75, 0.75]
    assert max(ages[2:]) < 0.02
