"""Counts in memory: several rates together, few keys, no work that is not a request's."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from fastapi_proxy_di.limiting.memory import Memory
from fastapi_proxy_di.limiting.rates import read_rates
from fastapi_proxy_di.limiting.window import Standing

SECOND = 1_000_000


def test_all_rates_are_tested_before_any_is_taken() -> None:
    """What the minute refuses is not taken from the second."""
    rates = read_rates(["2/second", "3/minute"])
    memory = Memory()

    def take(seconds: float) -> list[Standing]:
        return memory.take([b"s", b"m"], rates, 1, int(seconds * SECOND))

    assert take(1) == [(1, 0, SECOND), (2, 0, 60 * SECOND)]
    assert take(1) == [(0, 0, SECOND), (1, 0, 60 * SECOND)]
    assert take(1.5) == [(0, SECOND // 2, SECOND // 2), (1, 0, 59.5 * SECOND)]
    assert take(2.5) == [(1, 0, SECOND), (0, 0, 60 * SECOND)]
    assert take(4) == [(2, 0, 0), (0, 57 * SECOND, 58.5 * SECOND)]
    assert take(61) == [(1, 0, SECOND), (1, 0, 60 * SECOND)]


def test_keys_are_forgotten_when_their_window_has_passed() -> None:
    """No timer is needed: requests of other keys remove them."""
    (rate,) = rates = read_rates(["10/second"])
    memory = Memory()
    for number in range(10_000):
        memory.take([b"k%d" % number], rates, 1, number)
    assert len(memory) == 10_000

    memory.take([b"other"], rates, 1, 10_000 + 2 * rate.window)

    assert len(memory) == 1


def test_least_recently_used_keys_go_first() -> None:
    """The number of keys is bounded over all rates together."""
    minute, day = read_rates(["1/minute"]), read_rates(["2000/day"])
    memory = Memory(max_keys=3)
    memory.take([b"d"], day, 1, 0)
    memory.take([b"a"], minute, 1, 1)
    memory.take([b"b"], minute, 1, 2)
    memory.take([b"a"], minute, 1, 3)
    memory.take([b"c"], minute, 1, 4)

    assert len(memory) == 3
    assert memory.take([b"a"], minute, 1, 5)[0].wait > 0
    assert memory.take([b"d"], day, 0, 6)[0].remaining == 1999
    assert memory.take([b"b"], minute, 1, 7)[0].wait == 0


def test_memory_stays_flat_under_invented_keys() -> None:
    """The next 10,000 keys take the memory of the last ones."""
    rates = read_rates(["100/second"])
    memory = Memory()

    def invent(base: int) -> None:
        for number in range(10_000):
            memory.take([b"%d-%d" % (base, number)], rates, 1, base * 4 * SECOND + number * 100)

    invent(0)
    tracemalloc.start()
    try:
        invent(1)
        before, _ = tracemalloc.get_traced_memory()
        for base in range(2, 6):
            invent(base)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after < 1.1 * before
    assert len(memory) == 10_000


@pytest.mark.slow
def test_a_thousand_keys_at_ten_requests_a_second_take_no_measurable_cpu() -> None:
    """A second of them, 10,000 takes, is a few hundredths of a second of this process."""
    rates = read_rates(["100/minute"])
    memory = Memory()
    keys = [b"k%d" % number for number in range(1000)]
    for key in keys:
        memory.take([key], rates, 1, 0)

    started = time.process_time()
    for tenth in range(10):
        for key in keys:
            memory.take([key], rates, 1, SECOND + tenth * 100_000)
    spent = time.process_time() - started

    assert spent < 0.2


@pytest.mark.parametrize("limit", [100, 20_000, 1500])
def test_share_of_a_limit_may_change(limit: int) -> None:
    """What was taken stays counted, also where the share is so low that it would be exact alone."""
    memory = Memory()
    rates = read_rates([f"{limit}/minute"])

    def take(cost: int, processes: int) -> Standing:
        return memory.take([b"a"], rates, cost, 0, processes=processes)[0]

    assert not take(limit // 20, 1).wait
    assert take(limit // 10, 10).wait
    assert take(limit // 20, 10).remaining == 0
    assert take(1, 10).wait
    assert not take(limit // 2, 1).wait
