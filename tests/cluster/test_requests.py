"""``max_requests`` of an upstream holds in all processes together, which take it in blocks."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import cast

import pytest

from fastapi_proxy_di.cluster.requests import BLOCK
from fastapi_proxy_di.cluster.store import Script
from tests.cluster.admitting import AdmittingProcess
from tests.cluster.shared_gateways import shared_gateway
from tests.cluster.sharing import until
from tests.support.http_client import fetch
from tests.support.processes import ROOT
from tests.support.redis_servers import RedisServer

pytestmark = pytest.mark.e2e


@pytest.fixture
async def process(server: RedisServer) -> AsyncIterator[Callable[..., AdmittingProcess]]:
    """Make processes, which are closed at the end."""
    made: list[AdmittingProcess] = []

    def process(limit: int, window: float = 1e6, *, refuse: bool = False) -> AdmittingProcess:
        made.append(AdmittingProcess(server.url, limit, window, refuse=refuse))
        return made[-1]

    yield process
    await asyncio.gather(*(one.aclose() for one in made))


def trips(server: RedisServer) -> int:
    """How many scripts have run."""
    calls: int = server.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    return calls


async def test_processes_admit_the_limit_together(
    server: RedisServer, process: Callable[..., AdmittingProcess]
) -> None:
    """Whoever asks gets what is left, in blocks: few trips, and none once nothing is left."""
    one, two = process(1000), process(1000)

    first = sum([await one.admitted(1) for _ in range(400)])
    assert first == 400
    assert trips(server) < 40
    rest = await asyncio.gather(one.admitted(700), two.admitted(700))

    assert first + sum(rest) == 1000
    before = trips(server)
    assert await two.admitted(50) == 0
    assert trips(server) - before <= 1
    assert not one.cluster.store.contact.lost


async def test_blocks_end_with_their_window(
    server: RedisServer, process: Callable[..., AdmittingProcess]
) -> None:
    """The next window has the whole limit again, and refusals say when it begins."""
    one = process(160, 0.5)
    assert await one.admit()
    assert one.requests._left > 0

    def ended() -> bool:
        seconds, micro = server.client.time()
        return int((seconds + micro / 1e6) / 0.5) > window

    window = one.requests._window
    await until(ended, 5)

    assert not one.requests.take(160), "what was left of the block is not used any more"
    assert 160 <= await one.admitted(200) <= 200
    assert 0 <= one.requests.seconds_left <= 0.5


async def test_emptied_store_learns_what_was_admitted(
    server: RedisServer, process: Callable[..., AdmittingProcess]
) -> None:
    """A process tells it with the next block, so there is no second limit for it."""
    one, two = process(100), process(100)
    assert await one.admitted(60) == 60
    server.client.flushall()

    assert await one.admitted(100) == 40
    assert await two.admitted(100) == 0


async def test_lost_store_leaves_each_process_its_share(
    server: RedisServer, process: Callable[..., AdmittingProcess]
) -> None:
    """What a process admits then is counted when the store is back."""
    one, refusing = process(100), process(100, refuse=True)
    one.cluster.state.alive = 4
    assert await one.admitted(3) == 3
    server.kill()

    assert await one.admitted(100) == 22, "of 25, it had 3"
    assert await refusing.admitted(10) == 0
    assert one.cluster.store.contact.lost

    server.start()
    await one.cluster.store.run(Script("return 1"), [], looking=True)
    two = process(100)
    await one.admitted(1)
    await until(lambda: one.requests._fetching is None)
    assert await one.admitted(100) + await two.admitted(100) <= 75


@pytest.mark.slow
async def test_no_window_is_over_the_limit_in_real_processes(server: RedisServer) -> None:
    """Six processes admit what they can over many windows of the store's clock."""
    limit, window = 60, 0.5
    pipe = asyncio.subprocess.PIPE
    arguments = (server.url, str(window), str(limit), "4")
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.cluster.admitting", *arguments), stdout=pipe, cwd=ROOT
        )
        for _ in range(6)
    ]
    outputs = [(await one.communicate())[0] for one in processes]

    counts: Counter[int] = Counter()
    by_process: list[int] = []
    for output in outputs:
        times = json.loads(output.splitlines()[-1])
        by_process.append(len(times))
        for before, after in times:
            if int(before / window) == int(after / window):
                counts[int(before / window)] += 1
    assert max(counts.values()) <= limit, counts
    assert sum(count > limit // 2 for count in counts.values()) >= 4, counts
    assert min(by_process) > 0, by_process


@pytest.mark.slow
async def test_gateways_share_max_requests(server: RedisServer) -> None:
    """A proxied request beyond it gets 503 with the seconds to wait."""
    async with AsyncExitStack() as stack:
        gateways = [
            await stack.enter_async_context(
                shared_gateway(server.url, max_requests=20, max_requests_window=1e6)
            )
            for _ in range(3)
        ]
        statuses = Counter[int]()
        for number in range(60):
            response = await fetch(gateways[number % 3].address, target="/billing/x")
            statuses[response.status] += 1
            if response.status == 503:
                assert int(response.one(b"retry-after") or 0) >= 1

    assert statuses[200] == 20, statuses
    assert statuses[503] == 40, statuses


def test_clock_of_the_store_that_goes_back_gives_no_second_limit(server: RedisServer) -> None:
    """As after a failover: the window goes on; beyond a window it begins anew."""
    script = "local clock = {table.remove(ARGV, 1), table.remove(ARGV, 1)}\n" + (
        BLOCK.text.replace("redis.call('TIME')", "clock", 1)
    )

    def block(seconds: int, needs: int) -> list[int]:
        arguments = (seconds, 0, "one", 100, 10_000, -1, 0, 0, needs)
        return cast("list[int]", server.client.eval(script, 1, "k", *map(str, arguments)))

    assert block(1000, 100) == [100, 100, 100, 9999]
    assert block(995, 1) == [100, 0, 100, 14_999]
    assert block(1009, 1) == [100, 0, 100, 999]
    assert block(1010, 1) == [101, 6, 6, 9999]
    assert block(900, 1)[:2] == [90, 6]
