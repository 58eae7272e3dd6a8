"""Processes count together in a store; without it each has its share, and never none."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import cast

import pytest

from fastapi_proxy_di.cluster.store import Script
from fastapi_proxy_di.limiting.limiter import LimitsUnavailable
from tests.limiting.limiters import MINUTE, admitted, limit_of, limiter_of, standings
from tests.support.processes import ROOT
from tests.support.redis_servers import RedisServer

pytestmark = pytest.mark.e2e


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A redis-server."""
    with RedisServer() as server:
        yield server


async def test_limiters_with_one_key_count_together(server: RedisServer) -> None:
    """Two processes admit the limit once, in one slot, and the store knows no key in clear."""
    async with limiter_of(server.url) as (one, _), limiter_of(server.url) as (two, _):
        assert await admitted(one, 70) == 70
        assert await admitted(two, 70) == 30

    (key,) = cast("list[bytes]", server.client.keys())
    assert key.startswith(b"{shop}:limit:")
    assert len(key) == len("{shop}:limit:") + 32
    assert b"ada" not in cast("bytes", server.client.dump(key))


async def test_take_is_one_trip(server: RedisServer) -> None:
    """Also for several rates, refused or not."""
    limit = limit_of("5/second", "100/minute", "2000/hour")
    async with limiter_of(server.url) as (limiter, _):
        await standings(limiter, limit)
        before = trips(server)
        for _ in range(10):
            await standings(limiter, limit)

        assert trips(server) - before == 10


def trips(server: RedisServer) -> int:
    """How many trips with takes there have been."""
    calls: int = server.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    return calls


async def test_requests_of_one_turn_are_counted_in_one_trip(server: RedisServer) -> None:
    """A hundred at most, since the store does nothing else meanwhile."""
    async with limiter_of(server.url) as (limiter, _):
        await standings(limiter, MINUTE)
        before = trips(server)

        assert await admitted(limiter, 98) == 98
        assert trips(server) - before == 1
        assert await admitted(limiter, 201) == 1
        assert trips(server) - before == 1 + 3


async def test_request_that_ends_early_takes_nothing_from_others(server: RedisServer) -> None:
    """Those of the same trip are counted; it has been counted as well."""
    async with limiter_of(server.url) as (limiter, _):
        await standings(limiter, MINUTE)
        before = trips(server)
        tasks = [asyncio.create_task(standings(limiter, MINUTE)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()

        results = await asyncio.gather(*tasks, return_exceptions=True)

        assert isinstance(results[0], asyncio.CancelledError)
        assert [one[0].remaining for one in results[1:]] == [97, 96]  # type: ignore[index]
        assert trips(server) - before == 1


async def test_lost_store_leaves_each_process_its_share(server: RedisServer) -> None:
    """At once after the first call, at least one, and what costs more takes all of it."""
    async with limiter_of(server.url) as (limiter, store):
        assert await admitted(limiter, 100) == 100
        server.pause()
        started = time.monotonic()

        assert await admitted(limiter, 1000) == 8
        assert time.monotonic() - started < 5
        assert store.contact.lost
        once = time.monotonic()
        assert await admitted(limiter, 1000) == 0
        assert time.monotonic() - once < 0.9, "none has waited for the timeout of a second"
        result = await standings(limiter, MINUTE, 50, "bob")
        assert result[0][:2] == (0, 0)
        assert await admitted(limiter, 1, key="bob") == 0
        assert await admitted(limiter, 5, limit_of("3/minute")) == 1
        dear = await standings(limiter, MINUTE, 500, "carol")
        assert dear[0].wait > 0, "what costs more than the limit never passes"

        server.resume()
        await store.run(Script("return 1"), [], looking=True)
        assert await admitted(limiter, 5) == 0, "what was taken before counts again"


async def test_response_that_cannot_be_read_holds_no_request(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its trip are answered, from the share of this process."""

    async def broken(store: object, takes: object) -> object:
        return int("-nan")

    monkeypatch.setattr("fastapi_proxy_di.limiting.shared.take_all", broken)
    async with limiter_of(server.url) as (limiter, _), asyncio.timeout(10):
        assert await admitted(limiter, 100) == 8


async def test_lost_store_refuses_if_the_settings_say_so(server: RedisServer) -> None:
    """Nothing is counted then."""
    async with limiter_of(server.url, refuse=True) as (limiter, _):
        assert await admitted(limiter, 1) == 1
        server.kill()

        for _ in range(3):
            with pytest.raises(LimitsUnavailable):
                await standings(limiter, MINUTE)


@pytest.mark.slow
async def test_twelve_processes_admit_exactly_the_limit(server: RedisServer) -> None:
    """All at once, each from a process of its own, with clocks that are 61 s apart."""
    program = f"""
import asyncio, json, sys, time

shift, wall, ticks = 61 * int(sys.argv[1]), time.time, time.monotonic_ns
time.time = lambda: wall() + shift
time.time_ns = lambda: int(time.time() * 1e9)
time.monotonic_ns = lambda: ticks() + shift * 10**9

from tests.limiting.limiters import admitted, limiter_of

async def main():
    async with limiter_of({server.url!r}, timeout=30) as (limiter, _):
        print(int(time.time()), flush=True)
        sys.stdin.readline()
        print(json.dumps(await admitted(limiter, 40)))

asyncio.run(main())
"""
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, str(number)), stdin=pipe, stdout=pipe, cwd=ROOT
        )
        for number in range(12)
    ]
    clocks = []
    for process in processes:
        assert process.stdout is not None
        clocks.append(int(await process.stdout.readline()))
    assert max(clocks) - min(clocks) > 600
    outputs = await asyncio.gather(*(process.communicate(b"\n") for process in processes))

    counts = [json.loads(output) for output, _ in outputs]
    assert sum(counts) == 100
    assert sum(count > 0 for count in counts) > 1, counts
