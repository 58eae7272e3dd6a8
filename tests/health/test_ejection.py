"""Ejector: when it ejects, for how long, how many, and when an ejection ends."""

from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import EjectionSettings
from tests.pools.samples import pool_of


def ejector_of(count: int, **fields: Any) -> tuple[Ejector, Pool, Destination]:
    """Give an ejector, its pool and the pool's first destination."""
    pool = pool_of(count)
    return Ejector(pool, EjectionSettings(**fields)), pool, pool.destinations[0]


def fail(ejector: Ejector, pool: Pool, destination: Destination, now: float) -> float | None:
    """Count a failure and eject the destination where the ejector says so."""
    until = ejector.failed(destination, now)
    if until is not None:
        assert pool.eject(destination, until)
    return until


def readmit(ejector: Ejector, pool: Pool, destination: Destination) -> None:
    """End an ejection, as the supervisor does."""
    assert pool.readmit(destination)
    ejector.readmitted(destination)


def fail_until_ejected(ejector: Ejector, pool: Pool, destination: Destination, now: float) -> float:
    """Count five failures in a row; give the length of the ejection."""
    for _ in range(4):
        assert fail(ejector, pool, destination, now) is None
    until = fail(ejector, pool, destination, now)
    assert until is not None
    return until - now


def test_ejector_ejects_after_a_run_of_failures() -> None:
    """At the fifth in a row, for thirty seconds."""
    ejector, pool, destination = ejector_of(3)

    assert fail_until_ejected(ejector, pool, destination, 100.0) == 30
    assert not destination.available


def test_ejector_success_ends_a_run() -> None:
    """Four failures, a success, four failures: no ejection."""
    ejector, pool, destination = ejector_of(3, minimum_requests=100)
    for _ in range(3):
        for _ in range(4):
            assert fail(ejector, pool, destination, 1.0) is None
        ejector.succeeded(destination)


def break_off(
    ejector: Ejector, pool: Pool, destination: Destination, now: float = 1.0
) -> float | None:
    """Let a response begin and break off."""
    ejector.succeeded(destination)
    return ejector.failed(destination, now, broke_off=True)


def test_ejector_ejects_after_a_row_of_broken_responses() -> None:
    """Each of them had begun well, also several at once and after a stream has begun."""
    ejector, pool, destination = ejector_of(3, consecutive=4, minimum_requests=100)
    assert break_off(ejector, pool, destination) is None
    for _ in range(3):
        ejector.succeeded(destination)
    ends = [ejector.failed(destination, 1.0, broke_off=True) for _ in range(2)]

    assert ends == [None, None]
    assert break_off(ejector, pool, destination) == 31.0


def test_ejector_whole_response_ends_a_row_of_broken_ones() -> None:
    """The end of a response whose client has left counts as well."""
    ejector, pool, destination = ejector_of(3, consecutive=3, minimum_requests=100)
    for _ in range(5):
        assert break_off(ejector, pool, destination) is None
        assert break_off(ejector, pool, destination) is None
        destination.completed += 1


def test_ejector_stream_that_has_begun_ends_a_row_of_failures() -> None:
    """It may last for an hour, and shows already that the destination serves."""
    ejector, pool, destination = ejector_of(3, consecutive=3, minimum_requests=100)
    for _ in range(5):
        for _ in range(2):
            assert fail(ejector, pool, destination, 1.0) is None
        ejector.succeeded(destination)
        # The success of a broken response is taken back; that a response began stays true.
        ejector.failed(destination, 1.0, broke_off=True)
        destination.completed += 1


def test_ejector_counts_each_exchange_once() -> None:
    """Three broken responses among ten are three of ten requests."""
    ejector, pool, destination = ejector_of(3, consecutive=100)
    for _ in range(8):
        ejector.succeeded(destination)
    assert break_off(ejector, pool, destination) is None
    assert break_off(ejector, pool, destination) is None
    assert (destination.successes, destination.failures) == (8, 2)
    until = ejector.failed(destination, 1.0, broke_off=True)

    assert (destination.successes, destination.failures, until) == (7, 3, 31.0)


def test_ejector_broken_response_from_before_a_readmission_has_no_success_to_take_back() -> None:
    """The count of successes began at zero again."""
    ejector, pool, destination = ejector_of(3)
    ejector.succeeded(destination)
    fail_until_ejected(ejector, pool, destination, 1.0)
    readmit(ejector, pool, destination)
    ejector.failed(destination, 40.0, broke_off=True)

    assert (destination.successes, destination.failures) == (0, 1)


def test_ejector_ejects_by_rate() -> None:
    """Three failures of ten requests within the window, not in a row."""
    ejector, pool, destination = ejector_of(3)
    for _ in range(7):
        ejector.succeeded(destination)

    assert fail(ejector, pool, destination, 1.0) is None
    assert fail(ejector, pool, destination, 2.0) is None
    assert fail(ejector, pool, destination, 3.0) == 33.0


def test_ejector_rate_needs_a_minimum_of_requests() -> None:
    """Three of nine are too few requests."""
    ejector, pool, destination = ejector_of(3)
    for _ in range(6):
        ejector.succeeded(destination)
    for second in range(3):
        assert fail(ejector, pool, destination, float(second)) is None


def test_ejector_rate_drops_what_has_left_the_window() -> None:
    """Failures a minute apart never add up."""
    ejector, pool, destination = ejector_of(3)
    for minute in range(50):
        for _ in range(5):
            ejector.succeeded(destination)
        for second in range(2):
            assert fail(ejector, pool, destination, minute * 70.0 + second) is None


def test_ejector_ticks_keep_old_successes_out_of_the_window() -> None:
    """A thousand successes of an hour ago do not hide the failures of now."""
    ejector, pool, destination = ejector_of(3)
    ejector.tick(0.0)
    for _ in range(1000):
        ejector.succeeded(destination)
    for second in range(15, 3600, 15):
        ejector.tick(float(second))
    verdicts = []
    for failure in range(1, 6):
        ejector.succeeded(destination)
        verdicts.append(fail(ejector, pool, destination, 3600.0 + failure))

    assert verdicts == [None, None, None, None, 3635.0]


def test_ejector_time_grows_with_each_ejection_up_to_a_cap() -> None:
    """30, 60, 90, 120, at most 100."""
    ejector, pool, destination = ejector_of(3, max_time=100)
    now, times = 0.0, []
    for _ in range(4):
        out = fail_until_ejected(ejector, pool, destination, now)
        times.append(out)
        now += out
        readmit(ejector, pool, destination)

    assert times == [30, 60, 90, 100]
    assert destination.ejections == 4


def test_ejector_time_falls_while_there_is_no_ejection() -> None:
    """By one step per thirty seconds, down to the first."""
    ejector, pool, destination = ejector_of(3)
    now = 0.0
    for _ in range(3):
        now += fail_until_ejected(ejector, pool, destination, now)
        readmit(ejector, pool, destination)
    now += 65

    assert fail_until_ejected(ejector, pool, destination, now) == 60

    readmit(ejector, pool, destination)

    assert fail_until_ejected(ejector, pool, destination, now + 10_000) == 30


def test_ejector_time_does_not_fall_by_an_early_readmission() -> None:
    """The time counts from when the ejection was to end."""
    ejector, pool, destination = ejector_of(3)
    fail_until_ejected(ejector, pool, destination, 0.0)
    readmit(ejector, pool, destination)

    assert fail_until_ejected(ejector, pool, destination, 1.0) == 60


def test_ejector_counts_from_zero_after_a_readmission() -> None:
    """The failures of one ejection do not lead to the next."""
    ejector, pool, destination = ejector_of(3)
    fail_until_ejected(ejector, pool, destination, 0.0)
    readmit(ejector, pool, destination)

    assert ejector.failed(destination, 31.0) is None


@pytest.mark.parametrize(
    ("count", "share", "out"), [(2, 0.5, 1), (3, 0.5, 1), (4, 0.5, 2), (10, 0.25, 2), (4, 0.0, 1)]
)
def test_ejector_limits_the_ejected_share(count: int, share: float, out: int) -> None:
    """At most ``max_share`` of the pool, though one is always allowed."""
    ejector, pool, _ = ejector_of(count, max_share=share)
    for _ in range(10):
        for destination in pool.destinations:
            fail(ejector, pool, destination, 0.0)

    assert len(pool.available) == count - out


def test_ejector_ejects_at_the_next_failure_for_which_there_is_room() -> None:
    """The share was used up until another destination came back."""
    ejector, pool, first = ejector_of(3)
    second = pool.destinations[1]
    fail_until_ejected(ejector, pool, first, 0.0)
    for _ in range(8):
        assert fail(ejector, pool, second, 0.0) is None
    readmit(ejector, pool, first)

    assert fail(ejector, pool, second, 30.0) == 60.0


@pytest.mark.parametrize("state", ["ejected", "down", "draining"])
def test_ejector_does_not_eject_what_is_not_available(state: str) -> None:
    """Late failures of earlier requests, and failures in panic."""
    ejector, pool, destination = ejector_of(4)
    if state == "ejected":
        pool.eject(destination, 30.0)
    elif state == "down":
        pool.set_health(destination, False)
    else:
        pool.drain(destination)
    for _ in range(10):
        assert ejector.failed(destination, 1.0) is None


def test_ejector_does_nothing_when_off() -> None:
    """With ``enabled=False``."""
    ejector, pool, destination = ejector_of(3, enabled=False)
    for _ in range(20):
        assert fail(ejector, pool, destination, 0.0) is None


def test_ejector_gives_expired_ejections_and_the_next_expiry() -> None:
    """By the time of each."""
    ejector, pool, first = ejector_of(4)
    second = pool.destinations[1]

    assert ejector.next_expiry() is None
    assert ejector.expired(1000.0) == []

    pool.eject(first, 50.0)
    pool.eject(second, 40.0)

    assert ejector.next_expiry() == 40.0
    assert ejector.expired(39.9) == []
    assert ejector.expired(40.0) == [second]
    assert ejector.expired(50.0) == [first, second]


def test_ejector_cool_down_ejects_for_the_retry_after() -> None:
    """At most for ``max_time``, and only where it is respected and ejection is on."""
    ejector = ejector_of(2, respect_retry_after=True)[0]

    assert ejector.cool_down(20.0, 100.0) == 120.0
    assert ejector.cool_down(9999.0, 100.0) == 400.0
    assert ejector_of(2)[0].cool_down(20.0, 100.0) is None
    assert ejector_of(2, respect_retry_after=True, enabled=False)[0].cool_down(20, 100) is None


def test_ejector_good_probe_ends_an_ejection_but_no_cool_down() -> None:
    """A probe says nothing about Retry-After; the next ejection is an ordinary one again."""
    ejector, pool, destination = ejector_of(3, respect_retry_after=True)

    assert not ejector.ends_with_probe(destination)

    fail_until_ejected(ejector, pool, destination, 0.0)

    assert ejector.ends_with_probe(destination)

    readmit(ejector, pool, destination)
    until = ejector.cool_down(20.0, 40.0)
    assert until is not None
    pool.cool_down(destination, until)

    assert not ejector.ends_with_probe(destination)

    readmit(ejector, pool, destination)
    fail_until_ejected(ejector, pool, destination, 100.0)

    assert ejector.ends_with_probe(destination)


def test_ejector_drops_the_records_of_removed_destinations() -> None:
    """At the next tick, also where a late failure has made a new one."""
    ejector, pool, destination = ejector_of(2)
    ejector.failed(destination, 1.0)
    pool.replace([pool.destinations[1].settings])
    ejector.tick(2.0)
    ejector.failed(destination, 3.0)
    ejector.tick(4.0)

    assert set(ejector._records) == set(pool.destinations)


@given(
    st.integers(1, 8),
    st.floats(0, 1),
    st.integers(0, 10_000),
    st.lists(st.sampled_from("fsdur"), max_size=300),
)
@example(2, 0.5, 1, [*"ffffffffffrrrrrrrrrr", *"fsdur" * 50])
def test_ejector_never_empties_a_pool(
    count: int, share: float, seed: int, steps: list[str]
) -> None:
    """After any failures, probes and drains an ejection leaves one available."""
    ejector, pool, _ = ejector_of(count, max_share=share, consecutive=2)
    random = Random(seed)
    now = 0.0
    for step in steps:
        now += random.random() * 15
        destination = random.choice(pool.destinations)
        if step == "f":
            if fail(ejector, pool, destination, now) is not None:
                out = sum(one.ejected_until is not None for one in pool.destinations)

                assert pool.available
                assert out <= max(1, int(share * count))
        elif step == "s":
            ejector.succeeded(destination)
        elif step == "d":
            pool.set_health(destination, random.random() < 0.5)
        elif step == "u":
            (pool.drain if random.random() < 0.5 else pool.undrain)(destination)
        else:
            for expired in ejector.expired(now):
                readmit(ejector, pool, expired)


@pytest.mark.parametrize(
    ("failures", "successes", "good_after", "failing"),
    [(4, 0, 0, False), (5, 0, 0, True), (5, 0, 1, False), (5, 20, 0, True), (4, 6, 0, True)],
)
def test_ejector_tells_what_fails_also_if_it_may_not_be_ejected(
    failures: int, successes: int, good_after: int, failing: bool
) -> None:
    """By the row or by the rate, until a request succeeds or the window is over."""
    ejector, pool, destination = ejector_of(1)
    assert not ejector.failing(destination, 1.0)
    for _ in range(successes):
        ejector.succeeded(destination)
    for _ in range(failures):
        assert fail(ejector, pool, destination, 1.0) is None
    for _ in range(good_after):
        ejector.succeeded(destination)

    assert ejector.failing(destination, 1.0) is failing
    ejector.configure(EjectionSettings(enabled=False))
    assert not ejector.failing(destination, 1.0)


def test_ejector_follows_an_ejection_that_others_decided() -> None:
    """At most to ``max_time``, and the next ejection is as long as after one of its own."""
    ejector, pool, destination = ejector_of(3)

    assert ejector.follow(destination, 1000.0, 100.0) == 400
    assert ejector.follow(destination, 120.0, 100.0) == 120
    assert pool.eject(destination, 120.0)
    assert ejector.follow(destination, 125.0, 100.0) == 125
    readmit(ejector, pool, destination)

    assert fail_until_ejected(ejector, pool, destination, 125.0) == 90
