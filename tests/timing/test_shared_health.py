"""How soon the processes of an app know what some of them find out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.fleet import Fleet, ejected, traffic, within
from tests.support.links import Link
from tests.support.redis_servers import RedisServer

pytestmark = pytest.mark.e2e

INTERVAL = 1.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A redis-server."""
    with RedisServer() as server:
        yield server


@pytest.mark.parametrize("flushed", [False, True])
async def test_probes_of_a_killed_process_are_made_good_within_one_and_a_half_intervals(
    server: RedisServer, flushed: bool
) -> None:
    """Also if the store is emptied at the same time."""
    async with Fleet([server.url] * 3, interval=INTERVAL) as processes:
        (killed,) = [one for one in processes if one.holds]
        rest = [one for one in processes if one is not killed]
        for one in rest:
            one.probed.clear()
        began = time.monotonic()
        await killed.kill()
        if flushed:
            server.client.flushall()
        urls = {one.url for one in killed.pool.destinations}
        await within(5, lambda: {url for one in rest for _, url in one.probed} == urls)

        assert time.monotonic() - began < 1.5 * INTERVAL


async def test_ejection_is_followed_within_200_ms_of_the_deciding_vote(
    server: RedisServer,
) -> None:
    """In twelve processes; half of them vote."""
    async with Fleet([server.url] * 12, fall=1000) as processes:
        for one in processes:
            one.down = {one[1].url}
        await traffic(processes, server)
        for one in processes[:5]:
            one.fail(1)
        await asyncio.sleep(0.5)
        assert not processes[11].ejected
        processes[5].fail(1)

        assert await within(5, lambda: ejected(processes, 1)) < 0.2


def _lose(server: RedisServer, link: Link, how: str) -> Callable[[], None]:
    """Let half of the processes, or all, lose the store; give what brings it back."""
    match how:
        case "cut":
            link.cut()
            return link.join
        case "stopped":
            server.pause()
            return server.resume
        case _:
            server.kill()
            return server.start


@pytest.mark.parametrize("how", ["cut", "stopped", "emptied"])
async def test_all_agree_within_two_seconds_of_the_return_of_the_store(
    server: RedisServer, how: str
) -> None:
    """On drains of before and of meanwhile, in both halves, and on an ejection."""
    async with Link(server.port) as link:
        behind = f"redis://127.0.0.1:{link.port}/0"
        urls = [server.url, server.url, behind, behind]
        async with Fleet(urls, respect_retry_after=True) as processes:
            bring_back = _lose(server, link, how)
            await within(5, lambda: all(one.store.contact.lost for one in processes[2:]))
            for n in (0, 3):
                processes[n].supervisor.drain(processes[n][n])
                processes[n].shared.drain(processes[n][n].url, on=True)
            processes[2].supervisor.cool_down(processes[2][1], 30)
            await asyncio.sleep(0.6)  # the processes look for the store once a second
            bring_back()

            def agree() -> bool:
                drained = [
                    [one.draining for one in process.pool.destinations] for process in processes
                ]
                return drained == [[True, False, False, True]] * 4 and ejected(processes, 1)

            took = await within(5, agree)
            print(f"{how}: {took:.2f} s")
            assert took < 2.0
