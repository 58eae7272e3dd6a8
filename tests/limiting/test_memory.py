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
        return memory.take(["s", "m"], rates, 1, int(seconds * SECOND))

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
        memory.take([f"k{number}"], rates, 1, number)
    assert len(memory) == 10_000

    memory.take(["other"], rates, 1, 10_000 + 2 * rate.window)

    assert len(memory) == 1


def test_least_recently_used_keys_go_first() -> None:
    """The number of keys is bounded over all rates together."""
    minute, day = read_rates(["1/minute"]), read_rates(["2000/day"])
    memory = Memory(max_keys=3)
    memory.take(["d"], day, 1, 0)
    memory.take(["a"], minute, 1, 1)
    memory.take(["b"], minute, 1, 2)
    memory.take(["a"], minute, 1, 3)
    memory.take(["c"], minute, 1, 4)

    assert len(memory) == 3
    assert memory.take(["a"], minute, 1, 5)[0].wait > 0
    assert memory.take(["d"], day, 0, 6)[0].remaining == 1999
    assert memory.take(["b"], minute, 1, 7)[0].wait == 0


def test_memory_stays_flat_under_invented_keys() -> None:
    """The next 10,000 keys take the memory of the last ones."""
    rates = read_rates(["100/second"])
    memory = Memory()

    def invent(base: int) -> None:
        for number in range(10_000):
            memory.take([f"{base}-{number}"], rates, 1, base * 4 * SECOND + number * 100)

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
    keys = [f"k{number}" for number in range(1000)]
    for key in keys:
        memory.take([key], rates, 1, 0)

    started = time.process_time()
    for tenth in range(10):
        for key in keys:
            memory.take([key], rates, 1, SECOND + tenth * 100_000)
    spent = time.process_time() - started

    assert spent < 0.2


@pytest.mark.parametrize("limit", [100, 20_000])
def test_limit_of_a_key_may_change(limit: int) -> None:
    """A share of a limit is smaller or larger when there are more processes or fewer."""
    memory = Memory()
    whole, tenth = [read_rates([f"{one}/minute"])[0] for one in (limit, limit // 10)]

    assert not memory.take_one("a", whole, limit // 20, 0).wait
    assert memory.take_one("a", tenth, limit // 10, 0).wait
    assert memory.take_one("a", tenth, limit // 20, 0).remaining == 0
    assert memory.take_one("a", whole, limit // 2, 0).wait == 0
