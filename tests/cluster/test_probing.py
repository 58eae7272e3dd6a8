"""Probes of several processes with a real store: one process sends them, all know."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from fastapi_proxy_di.supervision.events import DestinationDown, DestinationUp
from tests.cluster.fleet import INTERVAL, Fleet, Process, within
from tests.support.redis_servers import RedisServer

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    """A redis-server."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    """The server, emptied."""
    running.client.flushall()
    return running


def holder(processes: list[Process]) -> Process:
    """Give the only process that has the lease."""
    (one,) = [one for one in processes if one.holds]
    return one


@pytest.mark.slow
async def test_probes_are_those_of_one_process(server: RedisServer) -> None:
    """All know what it finds, both ways, and one destination is not half of them."""
    async with Fleet([server.url] * 3) as processes:
        one = holder(processes)
        counts = [len(each.probed) for each in processes]
        await asyncio.sleep(3 * INTERVAL)
        sent = [len(each.probed) - count for each, count in zip(processes, counts, strict=True)]
        assert [n for n in sent if n] == [sent[processes.index(one)]]
        assert 8 <= sum(sent) <= 16

        one.down = {one[1].url}
        await within(10 * INTERVAL, lambda: all(each.unhealthy == [1] for each in processes))
        one.down = set()
        await within(8 * INTERVAL, lambda: not any(each.unhealthy for each in processes))
        assert all(each.kinds() == [DestinationDown, DestinationUp] for each in processes)


async def test_process_that_starts_takes_over_what_is_known(server: RedisServer) -> None:
    """It sends no probes of its own, and no request to what is down."""
    async with Fleet([server.url] * 2) as processes:
        one = holder(processes)
        one.down = {one[1].url}
        await within(10 * INTERVAL, lambda: all(each.unhealthy == [1] for each in processes))
        late = Process(server.url)
        await late.start()

        assert late.unhealthy == [1]
        assert not late.probed
        await late.stop()


async def test_probes_of_a_process_that_goes_are_sent_by_another(server: RedisServer) -> None:
    """At the next try of another one, if it ends in order."""
    async with Fleet([server.url] * 3) as processes:
        first = holder(processes)
        await first.stop()
        rest = [one for one in processes if one is not first]
        await within(10 * INTERVAL, lambda: any(one.holds for one in rest))


@pytest.mark.parametrize("flushed", [False, True])
async def test_probes_of_a_killed_process_are_made_good(server: RedisServer, flushed: bool) -> None:
    """Also if the store is emptied then; how soon is in ``tests/timing``."""
    async with Fleet([server.url] * 3) as processes:
        killed = holder(processes)
        rest = [one for one in processes if one is not killed]
        for one in rest:
            one.probed.clear()
        await killed.kill()
        if flushed:
            server.client.flushall()

        urls = {one.url for one in killed.pool.destinations}
        await within(1.5 * INTERVAL, lambda: {url for one in rest for _, url in one.probed} == urls)


@pytest.mark.slow
async def test_process_does_not_follow_what_its_requests_disprove(server: RedisServer) -> None:
    """As long as they succeed; it follows when it has none for an interval."""
    async with Fleet([server.url] * 3) as processes:
        one = holder(processes)
        busy = next(each for each in processes if each is not one)
        stop = asyncio.Event()

        async def requests() -> None:
            while not stop.is_set():
                busy.succeed(1)
                await asyncio.sleep(0.02)

        task = asyncio.create_task(requests())
        one.down = {one[1].url}
        await within(10 * INTERVAL, lambda: [each.unhealthy for each in processes].count([1]) == 2)
        await asyncio.sleep(2 * INTERVAL)
        assert busy.unhealthy == []
        stop.set()
        await task

        assert await within(10 * INTERVAL, lambda: busy.unhealthy == [1]) > INTERVAL / 2


async def test_holder_that_fails_everywhere_gives_the_lease_away(server: RedisServer) -> None:
    """Nobody follows it, and it takes no lease for three intervals."""
    async with Fleet([server.url] * 3) as processes:
        one = holder(processes)
        rest = [each for each in processes if each is not one]
        one.down = None
        await within(10 * INTERVAL, lambda: not one.holds)
        await within(5 * INTERVAL, lambda: any(each.holds for each in rest))
        await asyncio.sleep(2 * INTERVAL)

        assert not one.holds
        assert all(each.kinds() == [] for each in rest)
        await within(5 * INTERVAL, lambda: one.unhealthy == [])


async def test_second_process_confirms_that_most_is_down(server: RedisServer) -> None:
    """Then all follow."""
    async with Fleet([server.url] * 3) as processes:
        one = holder(processes)
        for each in processes:
            each.down = {destination.url for destination in one.pool.destinations[:3]}

        await within(10 * INTERVAL, lambda: all(each.unhealthy == [0, 1, 2] for each in processes))
        assert not one.holds


async def test_lone_process_publishes_that_most_is_down(server: RedisServer) -> None:
    """There is nobody to confirm it."""
    async with Fleet([server.url]) as (one,):
        one.down = None
        await within(10 * INTERVAL, lambda: len(one.unhealthy) == 4)
        await within(
            INTERVAL,
            lambda: (
                b'[0,"status 503"'
                in (server.client.hget("{shop}:state:billing", "health:0") or b"")
            ),
        )
        assert one.holds


@pytest.mark.slow
async def test_processes_probe_for_themselves_without_a_store(server: RedisServer) -> None:
    """Until it is back, also empty; then one does again."""
    async with Fleet([server.url] * 3) as processes:
        server.kill()
        for each in processes:
            each.down = {each[1].url}
        await within(15 * INTERVAL, lambda: all(each.unhealthy == [1] for each in processes))
        assert all(each.probed for each in processes)
        server.start()
        await within(2, lambda: not any(each.store.contact.lost for each in processes))
        await within(2, lambda: sum(each.holds for each in processes) == 1)
        counts = [len(each.probed) for each in processes]
        await asyncio.sleep(2 * INTERVAL)
        sent = [len(each.probed) - count for each, count in zip(processes, counts, strict=True)]

        assert len([n for n in sent if n]) == 1
        for each in processes:
            each.down = set()
        await within(10 * INTERVAL, lambda: not any(each.unhealthy for each in processes))


async def test_processes_that_probe_alone_share_nothing(server: RedisServer) -> None:
    """A policy that needs the latency of each process has it; a lease is given away."""
    async with Fleet([server.url] * 2) as processes:
        for one in processes:
            one.alone = True
            one.probed.clear()
        one.down = {one[1].url}
        await within(10 * INTERVAL, lambda: one.unhealthy == [1])

        assert all(one.probed for one in processes)
        assert not any(one.holds for one in processes)
        assert processes[0].unhealthy == []


@pytest.mark.slow
async def test_process_confirms_itself_if_no_other_can(server: RedisServer) -> None:
    """The others may probe nothing; it does not hide for ever what it finds."""
    async with Fleet([server.url] * 2) as processes:
        one = holder(processes)
        (other,) = [each for each in processes if each is not one]
        other.alone = True
        one.down = None
        await within(10 * INTERVAL, lambda: not one.holds)

        await within(
            5 * INTERVAL,
            lambda: (
                '[0,"status 503"' in str(server.client.hget("{shop}:state:billing", "health:0"))
            ),
        )


async def test_reload_with_a_shorter_interval_holds_at_once(server: RedisServer) -> None:
    """A process that waits by the long interval tries to take the lease by the short one."""
    async with Fleet([server.url] * 2, interval=60) as processes:
        first = holder(processes)
        (other,) = [each for each in processes if each is not first]
        await asyncio.sleep(0.1)  # both wait
        for each in processes:
            each.prober.reconfigure(each.prober.settings.model_copy(update={"interval": INTERVAL}))
        await within(2, lambda: server.client.pttl("{shop}:lease:billing:0") <= 1000 * INTERVAL)
        await first.kill()

        await within(10 * INTERVAL, lambda: other.holds)


async def test_large_upstream_is_probed_in_parts(server: RedisServer) -> None:
    """Each part has a lease and a record of its own, and what is in the second one is followed."""
    async with Fleet([server.url] * 2, destinations=150) as processes:
        one = holder(processes)
        assert len(server.client.keys("{shop}:lease:*")) == 2
        last = max(range(150), key=lambda n: one[n].url)
        one.down = {one[last].url}

        await within(10 * INTERVAL, lambda: all(each.unhealthy == [last] for each in processes))
        assert server.client.hlen("{shop}:state:billing") == 2


@pytest.mark.slow
async def test_destination_that_the_holder_lacks_is_probed_by_its_process(
    server: RedisServer,
) -> None:
    """It alone, both ways; when the holder has the destination too, only the holder probes."""
    one, two = Process(server.url), Process(server.url, destinations=5)
    extra = two[4]

    def sent(process: Process, since: float) -> set[str]:
        return {url for at, url in process.probed if at > since}

    await one.start()
    await two.start()
    try:
        assert one.holds
        two.down = {extra.url}
        await within(12 * INTERVAL, lambda: two.unhealthy == [4])
        two.down = set()
        await within(12 * INTERVAL, lambda: two.unhealthy == [])
        began = asyncio.get_running_loop().time() - 2 * INTERVAL
        assert sent(two, began) == {extra.url}

        one.supervisor.replace([each.settings for each in two.pool.destinations])
        one.prober.start()
        await within(3 * INTERVAL, lambda: extra.url in sent(one, began))
        await asyncio.sleep(INTERVAL)  # until its record has come
        began = asyncio.get_running_loop().time()
        one.down = {extra.url}
        await within(12 * INTERVAL, lambda: two.unhealthy == [4])
        assert not sent(two, began)
    finally:
        await two.stop()
        await one.stop()


async def test_destinations_of_unequal_large_pools_are_all_probed(server: RedisServer) -> None:
    """The processes divide them into other parts."""
    one, two = Process(server.url, destinations=150), Process(server.url, destinations=250)
    await one.start()
    await two.start()
    try:
        await asyncio.sleep(2 * INTERVAL)  # the first probes of all
        one.probed.clear()
        two.probed.clear()
        urls = {each.url for each in two.pool.destinations}
        await within(10 * INTERVAL, lambda: {url for _, url in one.probed + two.probed} == urls)
    finally:
        await two.stop()
        await one.stop()


async def test_process_follows_again_when_the_store_is_back(server: RedisServer) -> None:
    """Also if the lease has outlived the loss, so that the holder has nothing new to tell."""
    async with Fleet([server.url] * 2, interval=30) as processes:
        one = holder(processes)
        (other,) = [each for each in processes if each is not one]
        server.pause()
        await within(5, lambda: other.store.contact.lost and one.store.contact.lost)
        other.down = {other[1].url}
        for _ in range(2):
            await other.prober.probe(other[1])
        assert other.unhealthy == [1]
        server.resume()

        await within(2, lambda: other.unhealthy == [])
        assert one.holds
