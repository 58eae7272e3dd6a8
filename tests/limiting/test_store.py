"""The script in the store gives what the windows in memory give, by the store's clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastapi_proxy_di.cluster.connecting import connect
from fastapi_proxy_di.cluster.store import Contact, Script, Store
from fastapi_proxy_di.limiting.memory import Memory
from fastapi_proxy_di.limiting.rates import Rate, read_rates
from fastapi_proxy_di.limiting.store import TAKE, take
from fastapi_proxy_di.limiting.window import EXACT
from tests.support.redis_servers import RedisServer

pytestmark = pytest.mark.e2e

AT_A_TIME = Script(TAKE.text.replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}", 1))
"""The script with its clock as two more arguments."""
EPOCH = 1_700_000_000
SECOND = 1_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A redis-server."""
    with RedisServer() as server:
        yield server


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[Store]:
    """A client of the server, which is empty."""
    server.client.flushall()
    store = Store(connect(server.url, timeout=5, read_timeout=None), Contact(lambda _: None), 5)
    yield store
    await store.aclose()


def run_at(server: RedisServer, now: int, keys: list[str], cost: int, *numbers: int) -> Any:
    """Run the script at a time."""
    arguments = map(str, (cost, EXACT, *numbers, *divmod(now, SECOND)))
    return server.client.eval(AT_A_TIME.text, len(keys), *keys, *arguments)


RATES = {
    "exact": (Rate(5, 2 * SECOND, "a"),),
    "two windows": (Rate(EXACT + 200, 2 * SECOND, "b"),),
    "both": (Rate(4, SECOND, "a"), Rate(EXACT + 7, 3 * SECOND, "b"), Rate(9, 5 * SECOND, "c")),
}


@pytest.mark.parametrize("rates", RATES.values(), ids=RATES)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_script_gives_what_memory_gives(
    server: RedisServer, rates: tuple[Rate, ...], data: st.DataObject
) -> None:
    """For the same sequence of times, keys and costs."""
    costs = st.integers(0, 6) if len(rates) > 1 or rates[0].limit < 10 else st.integers(0, 700)
    steps = data.draw(
        st.lists(st.tuples(st.integers(0, 1_500_000), st.sampled_from("xy"), costs), max_size=30)
    )
    server.client.flushall()
    memory, now = Memory(), EPOCH * SECOND
    numbers = [number for rate in rates for number in (rate.limit, rate.window)]
    for pause, key, cost in steps:
        now += pause
        keys = [f"{{n}}:limit:{key}{index}" for index in range(len(rates))]

        ours = memory.take(keys, rates, cost, now)
        theirs = run_at(server, now, keys, cost, *numbers)

        assert ours == [tuple(one) for one in theirs]


async def test_script_counts_by_the_clock_of_the_store(store: Store, server: RedisServer) -> None:
    """Exactly the limit is admitted at once, and each key expires with its window."""
    rates = read_rates(["100/minute", "2000/hour"])
    keys = ["{n}:limit:a", "{n}:limit:b"]

    results = await asyncio.gather(*(take(store, keys, rates, 1) for _ in range(150)))

    assert sum(not any(one.wait for one in result) for result in results) == 100
    assert min(result[0].remaining for result in results) == 0
    assert min(result[1].remaining for result in results) == 1900
    assert 59_000 < server.client.pttl(keys[0]) <= 60_000
    assert 7_199_000 < server.client.pttl(keys[1]) <= 7_200_000


@pytest.mark.parametrize("limit", [3, EXACT + 1])
def test_clock_that_goes_back_gives_no_second_limit(server: RedisServer, limit: int) -> None:
    """Within a window time stands still for the key; beyond it the key begins anew."""
    server.client.flushall()

    def taken(seconds: float, cost: int) -> tuple[int, int, int]:
        now = int((EPOCH + seconds) * SECOND)
        (found,) = run_at(server, now, ["k"], cost, limit, 10 * SECOND)
        return tuple(found)

    assert taken(10, limit)[1] == 0
    _, wait, reset = taken(5, 1)
    assert 0 < wait <= reset <= 20 * SECOND
    assert taken(-3600, limit)[1] == 0
    assert 0 < taken(-3600, 1)[1] <= 20 * SECOND
