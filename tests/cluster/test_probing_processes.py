"""Real processes that share their probes: one is killed, one is stopped and continued."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.cluster.fleet import INTERVAL, Fleet, ejected, within
from tests.support.links import Link
from tests.support.processes import Process, running
from tests.support.redis_servers import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A redis-server."""
    with RedisServer() as server:
        yield server


@contextlib.asynccontextmanager
async def processes(server: RedisServer, number: int) -> AsyncIterator[list[Process]]:
    """Run processes; the first one has the lease."""
    async with contextlib.AsyncExitStack() as stack:
        started = []
        for _ in range(number):
            words = (sys.executable, "-m", "tests.cluster.fleet_process", server.url)
            started.append(await stack.enter_async_context(running(*words)))
            await started[-1].line("ready")
        yield started


def probes(process: Process, since: float) -> list[float]:
    """Give the times at which a process has sent probes since ``since``."""
    times = [float(line.split()[1]) for line in process.lines if line.startswith("probe")]
    return [one for one in times if one > since]


@pytest.mark.parametrize("flushed", [False, True])
async def test_probes_of_a_process_killed_at_once_are_made_good(
    server: RedisServer, flushed: bool
) -> None:
    """Also if the store is emptied then; how soon is in ``tests/timing``."""
    async with processes(server, 3) as (first, *rest):
        await within(5, lambda: bool(probes(first, time.monotonic() - INTERVAL)))
        killed = time.monotonic()
        first.signal(signal.SIGKILL)
        if flushed:
            server.client.flushall()

        await within(5, lambda: any(probes(one, killed) for one in rest))


async def test_process_that_was_stopped_sends_no_probe_by_its_old_lease(
    server: RedisServer,
) -> None:
    """Another one has it when SIGCONT comes, and the stopped one asks its own clock first."""
    async with processes(server, 2) as (first, second):
        await within(5, lambda: bool(probes(first, time.monotonic() - INTERVAL)))
        stopped = time.monotonic()
        first.signal(signal.SIGSTOP)
        await within(5, lambda: bool(probes(second, stopped)))
        await asyncio.sleep(4 * INTERVAL)
        continued = time.monotonic()
        first.signal(signal.SIGCONT)
        await within(5, lambda: len(probes(second, continued)) > 12)

        assert not probes(first, continued)


async def test_halves_that_were_cut_from_each_other_agree_again(server: RedisServer) -> None:
    """Each half goes on with what it sees; two seconds after they are joined all see the same."""
    async with Link(server.port) as link:
        behind = f"redis://127.0.0.1:{link.port}/0"
        urls = [server.url, server.url, behind, behind]
        async with Fleet(urls, respect_retry_after=True) as both:
            here, there = both[:2], both[2:]
            link.cut()
            await within(5, lambda: all(one.store.contact.lost for one in there))
            for one in here:
                one.down = {one[2].url}
            for one in there:
                one.down = {one[1].url}
            here[0].supervisor.cool_down(here[0][3], 30)
            await within(5, lambda: all(one.unhealthy == [2] for one in here))
            await within(5, lambda: all(one.unhealthy == [1] for one in there))
            assert ejected(here, 3)
            assert ejected(there)
            for one in both:
                one.down = {one[1].url}
            link.join()

            await within(4, lambda: all(one.unhealthy == [1] for one in both))
            await within(1, lambda: ejected(both, 3))
