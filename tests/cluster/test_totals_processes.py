"""Real processes that count: one is killed, one is stopped and continued, the store is emptied."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from fastapi_proxy_di.cluster.store import StoreLost
from tests.cluster.counting import CountingProcess
from tests.cluster.sharing import alive, until
from tests.support.processes import Process, running
from tests.support.redis_servers import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def counted(process: Process) -> int:
    """Give what a process has told to have counted; it may be up to ten more."""
    lines = [line for line in process.lines if line.startswith("counted")]
    return int(lines[-1].split()[1])


@contextlib.asynccontextmanager
async def sampled(reader: CountingProcess) -> AsyncIterator[list[int]]:
    """Sample the sum of attempts all the time; it never falls."""
    sums = [0]

    async def sample() -> None:
        while True:
            with contextlib.suppress(StoreLost):
                now = (await reader.sums()).attempts
                assert now >= sums[-1], f"{now} after {sums[-1]}"
                sums.append(now)
            await asyncio.sleep(0.005)

    task = asyncio.create_task(sample())
    try:
        yield sums
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def series(reader: CountingProcess, number: int) -> None:
    """Wait until so many processes are counted by themselves."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(StoreLost):
                if len((await reader.totals._reader.all("billing")).series) == number:
                    return
            await asyncio.sleep(0.01)


async def test_sums_of_processes_that_are_killed_stopped_and_continued() -> None:
    """They never fall, count nothing twice, and name who went missing."""
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer())
        reader = CountingProcess(server.url)
        await reader.cluster.start()
        stack.push_async_callback(reader.cluster.aclose)
        words = (sys.executable, "-m", "tests.cluster.counting_process", server.url)
        processes = [await stack.enter_async_context(running(*words)) for _ in range(3)]
        names = [(await one.line(r"name (\S+)"))[1] for one in processes]
        sums = await stack.enter_async_context(sampled(reader))
        killed, stopped, _ = processes
        await series(reader, 4)
        for one in processes:
            await one.line("counted 50")

        killed.signal(signal.SIGKILL)
        stopped.signal(signal.SIGSTOP)
        await series(reader, 2)  # both have been added to what has ended
        await alive(reader.cluster, 2)
        missing = {one.process for one in await reader.cluster.members.all() if not one.alive}
        assert missing == set(names[:2])

        stopped.signal(signal.SIGCONT)
        await series(reader, 3)
        server.client.flushall()
        for one in processes[1:]:
            await one.line("counted")
            one.signal(signal.SIGTERM)
        for one in processes:
            await one.end()

        # The last report is at most an interval old, and what is told at most ten attempts.
        told = sum(map(counted, processes))
        await until(lambda: sums[-1] >= told - 3 * 30, 5)
        await series(reader, 1)
        assert sums[-1] <= told + 3 * 10
