"""The script in the store gives what the windows in memory give, by the store's clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastapi_proxy_di.cluster.connecting import connect
from fastapi_proxy_di.cluster.store import Contact, Script, Store, StoreLost
from fastapi_proxy_di.limiting.memory import Memory
from fastapi_proxy_di.limiting.rates import Rate, read_rates
from fastapi_proxy_di.limiting.store import TAKE, Take, numbers_of, standings_of, take_all
from fastapi_proxy_di.limiting.window import EXACT, Standing
from tests.support.redis_servers import RedisServer

pytestmark = pytest.mark.e2e

AT_A_TIME = Script(
    "local clock = {table.remove(ARGV, 1), table.remove(ARGV, 1)}\n"
    + TAKE.text.replace("redis.call('TIME')", "clock", 1)
)
"""The script with its clock as two arguments before the others."""
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


def run_at(server: RedisServer, now: int, *takes: Take) -> list[list[Standing]]:
    """Run the script at a time."""
    keys = [key for take in takes for key in take.keys]
    arguments = map(str, (*divmod(now, SECOND), EXACT, *[take.numbers for take in takes]))
    return standings_of(server.client.eval(AT_A_TIME.text, len(keys), *keys, *arguments))


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
    """For the same sequence of times, keys and costs, also with several takes in one trip."""
    costs = st.integers(0, 6) if len(rates) > 1 or rates[0].limit < 10 else st.integers(0, 700)
    takes = st.lists(st.tuples(st.sampled_from("xy"), costs), min_size=1, max_size=3)
    steps = data.draw(st.lists(st.tuples(st.integers(0, 1_500_000), takes), max_size=20))
    server.client.flushall()
    memory, now = Memory(), EPOCH * SECOND
    for pause, together in steps:
        now += pause
        given = [
            Take(
                [f"{{n}}:limit:{key}{index}" for index in range(len(rates))],
                numbers_of(rates, cost),
            )
            for key, cost in together
        ]

        ours = [
            memory.take([key.encode() for key in take.keys], rates, cost, now)
            for take, (_, cost) in zip(given, together, strict=True)
        ]
        assert ours == run_at(server, now, *given)


async def test_script_counts_by_the_clock_of_the_store(store: Store, server: RedisServer) -> None:
    """Exactly the limit is admitted at once, and each key expires with its window."""
    rates = read_rates(["100/minute", "2000/hour"])
    keys = ["{n}:limit:a", "{n}:limit:b"]

    trips = [take_all(store, [Take(keys, numbers_of(rates, 1))] * 30) for _ in range(5)]
    results = [result for trip in await asyncio.gather(*trips) for result in trip]

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
        rate = Rate(limit, 10 * SECOND, "a")
        ((found,),) = run_at(server, now, Take(["k"], numbers_of([rate], cost)))
        return found

    assert taken(10, limit)[1] == 0
    _, wait, reset = taken(5, 1)
    assert 0 < wait <= reset <= 20 * SECOND
    assert taken(-3600, limit)[1] == 0
    assert 0 < taken(-3600, 1)[1] <= 20 * SECOND


async def test_key_with_something_else_in_it_is_the_fault_of_its_take_alone(
    store: Store, server: RedisServer
) -> None:
    """The other takes of the trip are counted, in every order, and the store is not lost."""
    exact, two = read_rates(["5/minute"]), read_rates(["5000/minute"])
    server.client.set("text", "x")
    server.client.rpush("list", "x")
    server.client.rpush("digits", "1 1 " + "9" * 400)
    takes = [
        Take(keys, numbers_of(rates, 1))
        for keys, rates in [
            (["text"], exact),
            (["a"], exact),
            (["list"], two),
            (["list"], exact),
            (["b", "text"], exact + read_rates(["7/hour"])),
            (["c"], two),
            (["text"], two),
            (["digits"], exact),
        ]
    ]

    results = await take_all(store, takes)

    counted = [number for number, result in enumerate(results) if result]
    assert counted == [1, 5]
    assert (results[1][0].remaining, results[5][0].remaining) == (4, 4999)
    assert server.client.exists("b") == 0, "none of several rates is taken then"
    assert not store.contact.lost


async def test_refusal_of_a_high_cost_takes_the_store_no_longer(
    store: Store, server: RedisServer
) -> None:
    """A hundred in one trip, of a key with a thousand takes, hold up no other client."""
    rates = read_rates(["1000/hour"])
    for _ in range(10):
        await take_all(store, [Take(["a"], numbers_of(rates, 1))] * 100)
    server.client.config_resetstat()

    results = await take_all(store, [Take(["a"], numbers_of(rates, 1000))] * 100)

    assert all(result[0].wait > 0 for result in results)
    spent: float = server.client.info("commandstats")["cmdstat_evalsha"]["usec"]
    assert spent < 100_000, "it was three times as much with each take read"


async def test_store_that_writes_nothing_is_lost(store: Store, server: RedisServer) -> None:
    """That is no fault of a key."""
    server.client.config_set("min-replicas-to-write", "1")
    try:
        with pytest.raises(StoreLost):
            await take_all(store, [Take(["k"], numbers_of(read_rates(["5/minute"]), 1))])
    finally:
        server.client.config_set("min-replicas-to-write", "0")
