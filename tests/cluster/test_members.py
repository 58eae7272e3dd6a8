"""Processes know of each other by their beats."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fastapi_proxy_di.cluster.members import Applied
from tests.cluster.sharing import until
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


async def test_process_that_ended_in_order_is_not_missed(start: Any, server: RedisServer) -> None:
    """One that vanished stays listed without being alive; a change does not wait for it."""
    one, two, three = [await start() for _ in range(3)]
    await two.cluster.aclose()
    for task in tuple(three.cluster._tasks):
        task.cancel()

    listed = {member.process for member in await one.cluster.members.all()}
    assert listed == {one.cluster.state.process, three.cluster.state.process}
    server.client.delete(f"{{shop}}:beat:{three.cluster.state.process}")
    alive = {member.process for member in await one.cluster.members.all() if member.alive}
    assert alive == {one.cluster.state.process}
    entry = await one.write("http://a:80", 1)
    assert await one.cluster.members.acknowledged(entry, 2.0) == Applied(1, 1, ())
