"""Processes know of each other by their beats."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fastapi_proxy_di.cluster.members import Applied, UpstreamCounts
from tests.cluster.sharing import alive, until
from tests.support.redis_servers import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


async def test_change_is_known_everywhere_at_once_and_acknowledged(start: Any) -> None:
    """A record reaches all processes within 200 ms, and later ones before they serve."""
    one, two, three = [await start() for _ in range(3)]
    began = time.monotonic()

    entry = await one.write("http://a:80", 1)
    await until(lambda: two.seen == three.seen == one.seen, 0.2)

    assert await one.cluster.members.acknowledged(entry, 2.0) == Applied(3, 3, ())
    assert time.monotonic() - began < 1.0
    late = await start()
    assert late.seen == {"http://a:80": 1}


async def test_reader_is_restarted_only_if_it_makes_no_progress(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries that come late on a slow link are no reason; entries that do not come are."""
    one = await start()
    state, members = one.cluster.state, one.cluster.members
    restarts: list[int] = []
    monkeypatch.setattr(members, "_amiss", lambda: restarts.append(1))
    for task in tuple(one.cluster._tasks):  # this test reads and beats instead
        task.cancel()
    entries = [await one.write("http://a:80", n) for n in range(8)]
    for entry in entries[:6]:
        state.applied = entry or ""
        await members.beat()
    assert not restarts
    await members.beat()
    assert restarts


async def test_process_that_went_missing_is_named(start: Any, server: RedisServer) -> None:
    """One that ended in order is not; a change waits for neither."""
    one, two, three = [await start() for _ in range(3)]
    await two.cluster.aclose()
    for task in tuple(three.cluster._tasks):
        task.cancel()
    missing = three.cluster.state.process
    listed = {member.process for member in await one.cluster.members.all()}
    assert listed == {one.cluster.state.process, missing}

    await alive(one.cluster, 1)
    (found,) = [each for each in await one.cluster.members.all() if not each.alive]
    assert found.process == missing
    assert missing.startswith(f"{found.name}:")
    assert 3 <= found.age < 5
    assert found.version
    entry = await one.write("http://a:80", 1)
    assert await one.cluster.members.acknowledged(entry, 2.0) == Applied(1, 1, ())


async def test_change_names_the_processes_that_have_not_applied_it(start: Any) -> None:
    """Those that beat and do not read, after the time that one waits for them."""
    one, two, three = [await start() for _ in range(3)]
    (reader,) = [each for each in three.cluster._tasks if "reader" in each.get_name()]
    reader.cancel()
    began = time.monotonic()
    entry = await one.write("http://a:80", 1)
    applied = await one.cluster.members.acknowledged(entry, 1.0)
    assert applied == Applied(2, 3, (three.cluster.state.process.rpartition(":")[0],))
    assert 1.0 <= time.monotonic() - began < 2.0
    assert two.seen == {"http://a:80": 1}


async def test_beat_is_small_however_many_upstreams_there_are(
    start: Any, server: RedisServer
) -> None:
    """It tells of as many as fit; nothing that is not signed is believed."""
    one = await start()
    members, name = one.cluster.members, one.cluster.state.process
    given = [(f"tenant-{n}", UpstreamCounts(1000, 999, n)) for n in range(1000)]
    members._counts = lambda: given
    await members.beat()

    key = f"{{shop}}:beat:{name}"
    record: Any = server.client.get(key)
    assert 700 < len(record) < 1000
    (found,) = await members.all()
    assert found.upstreams == dict(given[: len(found.upstreams)])
    assert len(found.upstreams) > 15
    members._counts = lambda: [("a" * 2000, UpstreamCounts(1, 1, 1))]
    await members.beat()
    assert (await members.all())[0].upstreams == {}

    server.client.zadd("{shop}:members", {"<b>:1:a": time.time() * 1000})
    assert [each.process for each in await members.all()] == [name]
    server.client.set("{shop}:beat:<b>:1:a", record)
    assert [each.process for each in await members.all()] == [name]


async def test_last_processes_that_went_missing_are_named(start: Any, server: RedisServer) -> None:
    """Of thousands, as a process leaves that ends without a word again and again."""
    one = await start()
    signer, keys = one.cluster.signer, one.cluster.state.keys
    now = time.time() * 1000 - 60000
    names = [f"host:{n}:abcdef" for n in range(3000)]
    pipeline = server.client.pipeline()
    for n, name in enumerate(names):
        body = {"applied": "0-0", "version": "1", "upstreams": {}}
        pipeline.set(keys.beat(name), signer.sign(("beat", name), body))
        pipeline.zadd(keys.members, {name: now + n})
    pipeline.execute()

    found = await one.cluster.members.all()
    assert {each.process for each in found if not each.alive} == set(names[-100:])
    assert [each.process for each in found if each.alive] == [one.cluster.state.process]
    entry = await one.write("http://a:80", 1)
    assert await one.cluster.members.acknowledged(entry, 2.0) == Applied(1, 1, ())
