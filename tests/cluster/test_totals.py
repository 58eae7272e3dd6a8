"""Processes report their totals; any one reads the sum, which never falls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from fastapi_proxy_di.cluster.store import Script, StoreLost
from fastapi_proxy_di.cluster.totals_scripts import READ_ROWS
from tests.cluster.counting import A, B, CountingProcess
from tests.cluster.sharing import until
from tests.support.redis_servers import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

Start = Callable[..., Any]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A redis-server."""
    with RedisServer() as server:
        yield server


@pytest.fixture
async def start(server: RedisServer) -> AsyncIterator[Start]:
    """Start a process; all are closed at the end."""
    started: list[CountingProcess] = []

    async def start(*given: Any, **further: Any) -> CountingProcess:
        process = CountingProcess(server.url, *given, **further)
        await process.cluster.start()
        started.append(process)
        return process

    yield start
    await asyncio.gather(*(process.cluster.aclose() for process in started))


async def reach(
    process: CountingProcess, attempts: int, seconds: float = 5.0, least: int = -1
) -> None:
    """Wait until the sum of attempts is so high; it may not be more, and not fall."""
    loop = asyncio.get_running_loop()
    end, before = loop.time() + seconds, least
    while True:
        assert loop.time() < end, f"{before} of {attempts}"
        with suppress(StoreLost):
            now = (await process.sums()).attempts
            assert before <= now <= attempts
            before = now
            if now == attempts:
                return
        await asyncio.sleep(0.01)


async def ended(process: CountingProcess, number: int, seconds: float = 5.0) -> None:
    """Wait until so many series are left; no sum falls or rises meanwhile."""
    loop = asyncio.get_running_loop()
    end, before, left = loop.time() + seconds, await process.sums(), -1
    while left != number:
        assert loop.time() < end
        left = len((await process.totals._reader.all("billing")).series)
        now = await process.sums()
        assert (now.attempts, now.requests) == (before.attempts, before.requests)
        assert now.durations == before.durations


async def test_sums_are_those_of_all_processes(start: Start) -> None:
    """Counts, histograms and gauges, of each destination; then changes of them."""
    processes = [await start() for _ in range(3)]
    for number, one in enumerate(processes, 1):
        one.count(number)
        one.count(2, url=B, result=("POST", 503, None))
        one.numbers.metrics.refusals["limits.max_in_flight"] = number
    await reach(processes[0], 12)

    read = await processes[0].read()
    by_url = {one.url: one for one in read.counts.all()}
    assert by_url[A].attempts == by_url[A].first_byte.count == 6
    assert by_url[A].server == ("10.0.0.1", 80)
    assert by_url[B].durations["POST", 503, "503"].count == 6
    assert by_url[B].durations["POST", 503, "503"].seconds == pytest.approx(0.12)
    assert read.counts.refusals == {"limits.max_in_flight": 6}
    assert read.gauges.tunnels == 9
    assert read.gauges.states == {"available": 6}
    assert dict(read.gauges.servers)["10.0.0.1", 80] == (0, 3, 6)

    processes[1].count(5)
    await reach(processes[2], 17)


async def test_ended_and_missing_processes_stay_in_the_sums_once(start: Start) -> None:
    """Of one that ended in order, and of one that is no more; several look for both."""
    one, two, left, missing = [await start() for _ in range(4)]
    for process in (one, two, left, missing):
        process.count(7)
    await reach(one, 28)
    left.count(2)
    await left.cluster.aclose()
    await reach(one, 30, 1.0)
    missing.stop()

    await ended(one, 2)
    await ended(two, 2)
    read = await one.read()
    assert read.gauges.tunnels == 6, "gauges are those of the living"
    one.count()
    await reach(two, 31)


async def test_process_that_goes_on_after_all_is_not_counted_twice(start: Start) -> None:
    """Its series has ended; it begins another one without what was counted."""
    one, stopped = await start(), await start()
    stopped.count(5)
    stopped.count(2, url=B, result=("POST", 503, None))
    await reach(one, 7)
    stopped.stop()
    await ended(one, 1)

    stopped.count(3)
    task = asyncio.create_task(stopped.totals.run())
    try:
        await reach(one, 10)
        assert (await one.sums()).durations == 10
        assert (await one.sums()).requests == 10
        assert (await one.sums()).by_url == {A: 8, B: 2}
    finally:
        task.cancel()
    # And once more.
    await ended(one, 1)
    stopped.count()
    await stopped.totals.finish()
    await reach(one, 11, 1.0)


async def test_two_processes_cannot_add_a_series_twice(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one that has reported again since it was read."""
    one, two = await start(interval=60), await start(interval=60)
    missing = await start(interval=60)
    missing.count(5)
    for process in (one, two, missing):
        await process.totals.report()
    missing.stop()
    series = missing.totals._series[0].name
    folding = [process.totals._ended.add("billing", [series]) for process in (one, two)]
    await asyncio.gather(*folding)
    await asyncio.gather(
        *(process.totals._ended.add("billing", [series]) for process in (one, two))
    )
    assert (await one.sums()).attempts == 5

    rows = await one.totals._reader.all("billing")
    two.count(3)
    await two.totals.report()

    async def stale(_: str) -> Any:
        return rows

    monkeypatch.setattr(one.totals._ended._reader, "all", stale)
    await one.totals._ended.add("billing", [two.totals._series[0].name])
    assert (await two.sums()).attempts == 8
    assert len((await two.totals._reader.all("billing")).series) == 2


async def test_emptied_store_has_all_totals_again(start: Start, server: RedisServer) -> None:
    """Those of the living and of processes that had ended; until then no lower sum is shown."""
    one, two, missing = [await start() for _ in range(3)]
    for process in (one, two, missing):
        process.count(4)
    await reach(one, 12)
    missing.stop()
    await ended(one, 2)
    await asyncio.sleep(0.3)  # so that both know what has ended

    server.client.flushall()
    await asyncio.gather(reach(one, 12, least=12), reach(two, 12, least=12))

    server.kill()
    one.count()
    await until(lambda: one.cluster.store.contact.lost and two.cluster.store.contact.lost)
    server.start()
    await asyncio.gather(reach(one, 13, 10, least=12), reach(two, 13, 10, least=12))


async def test_forged_rows_are_ignored(
    start: Start, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Of unknown processes, of known ones, and rows of one process moved to another."""
    one, two = await start(), await start()
    one.count(3)
    await reach(two, 3)
    name = one.totals._series[0].name
    own, other = f"{{shop}}:totals:billing:{name}", "{shop}:totals:billing:evil:1:a.1"
    record = server.client.hget(own, A)
    server.client.zadd("{shop}:series:billing", {"evil:1:a.1": 9e15, "<b>": 1})
    server.client.hset(other, A, record)
    server.client.hset(other, "http://evil", b"f" * 32 + b'{"v":1,"counts":{"attempts":9}}')
    server.client.hset(own, "http://evil", record)
    server.client.hset("{shop}:gone:billing", A, record)
    server.client.zadd("{shop}:members", {"<script>:1:a": 9e15})

    assert (await two.sums()).by_url == {A: 3, B: 0}
    assert "evil" not in str(await two.totals.all("billing", ()))
    assert {each.process for each in await two.cluster.members.all()} == {one.name, two.name}
    assert two.cluster.state.ignored >= 4
    assert 1 <= caplog.text.count("it is not signed") <= 2, "once in each process at most"


async def test_destination_that_left_long_ago_is_counted_as_gone(start: Start) -> None:
    """In this process, and in the sum of what has ended; no sum falls at the move."""
    one, two = await start(), await start([A])
    one.count(2)
    one.count(5, url=B)
    two.count(1)
    await reach(two, 8)
    metrics = one.numbers.metrics
    destinations = tuple(one.numbers.destinations())
    metrics._left_at[B] = -1e9
    metrics.move_gone()
    one.numbers.destinations().remove(destinations[1])
    await reach(two, 8)
    await asyncio.sleep(0.3)
    assert (await two.sums()).by_url == {A: 3, "gone": 5}

    gone_from_all = await start(["http://10.0.0.9"])
    gone_from_all.count(4, url="http://10.0.0.9")
    await reach(two, 12)
    gone_from_all.stop()
    await ended(two, 2)
    assert (await two.sums()).by_url == {A: 3, "gone": 9}


async def test_upstream_that_ends_before_its_process_keeps_its_counts(start: Start) -> None:
    """The last of them are reported still, and a new one of its name counts on."""
    one, two = await start(), await start()
    one.count(3)
    one.end()
    again = CountingProcess("redis://127.0.0.1:1")
    one.totals.add(again.numbers)
    again.count(2)
    await reach(two, 5)
    await ended(two, 2)


async def test_totals_are_not_read_without_a_store(start: Start, server: RedisServer) -> None:
    """The reader is told, so that it shows no lower sum."""
    one = await start()
    server.kill()
    with pytest.raises(StoreLost):
        await one.sums()


async def test_many_destinations_with_long_names(
    start: Start, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No part of a report is longer than 64 KiB, and the store needs little for each row."""
    urls = [f"http://{'a' * 50}-{n}.example:8080/{'b' * 60}" for n in range(1000)]
    one, two = await start(urls, interval=1000), await start(urls, interval=1000)
    one.stop()
    two.stop()
    lengths: list[int] = []
    send = one.totals._store._send

    async def measured(script: Any, keys: Any, arguments: Any) -> Any:
        lengths.append(sum(len(str(each).encode()) for each in (*keys, *arguments)))
        return await send(script, keys, arguments)

    monkeypatch.setattr(one.totals._store, "_send", measured)
    for counts in one.numbers.metrics.all():
        counts.attempts += 3
        counts.series("GET", 200, None).observe(0.1)
    await one.totals.report(0)
    await two.totals.report(0)
    assert 10 < len(lengths) < 60
    assert max(lengths) < 16384 + 1024  # with what is not a row
    assert (await two.sums()).attempts == 3000

    size: Any = server.client.memory_usage(f"{{shop}}:totals:billing:{one.totals._series[0].name}")
    assert size < 1000 * 700
    lengths.clear()
    await one.totals.report(0)
    assert sum(lengths) < 1000, "nothing has changed"


async def test_counts_that_move_while_they_are_read_are_read_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one row to another, or to the sum of what has ended, between two pieces."""
    urls = [f"http://10.0.{n // 250}.{n % 250}" for n in range(500)]
    one, two, ended = [await start(urls, interval=1000) for _ in range(3)]
    for process in (one, two, ended):
        process.stop()
        for counts in process.numbers.metrics.all():
            counts.attempts += 1
        await process.totals.report(0)
    metrics, destinations = one.numbers.metrics, one.numbers.destinations()
    assert isinstance(destinations, list)
    run, reads = two.totals._store.run, 0

    async def moving(script: Any, *given: Any) -> Any:
        nonlocal reads
        result = await run(script, *given)
        reads += script is READ_ROWS
        if script is READ_ROWS and reads in {3, 7}:
            gone = [destinations.pop() for _ in range(150)]
            metrics.replaced((), gone)
            metrics._left_at.update({each.url: -1e9 for each in gone})
            metrics.move_gone()
            await one.totals.report(0)
        if script is READ_ROWS and reads == 12:
            await one.totals._ended.add("billing", [ended.totals._series[0].name])
        return result

    monkeypatch.setattr(two.totals._store, "run", moving)
    found = await two.sums()
    assert found.attempts == 1500
    assert found.by_url["gone"] == 300
    assert reads > 20


async def test_looking_for_what_has_ended_leaves_time_to_report(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a thousand upstreams that ended elsewhere, it goes on in the next interval."""
    one = await start(interval=1000)
    one.stop()
    names = [f"tenant-{n}" for n in range(1000)]
    for name in names:
        await one.cluster.store.run(
            Script("redis.call('ZADD', KEYS[1], 1, 'host:1:a.1')"),
            (one.cluster.state.keys.series(name),),
        )
    clock = [0.0]
    added: list[str] = []

    async def add(upstream: str, _: Any) -> None:
        added.append(upstream)
        clock[0] += 10

    monkeypatch.setattr(one.totals._ended, "add", add)
    monkeypatch.setattr("fastapi_proxy_di.cluster.totals_ended.monotonic", lambda: clock[0])
    await one.totals._ended.look(names, 0)
    assert added == names[:50]
