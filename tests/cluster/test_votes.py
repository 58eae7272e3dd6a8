"""Ejections of several processes with a real store: what enough of them see holds for all."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any, cast

import pytest

from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.settings import EjectionSettings
from fastapi_proxy_di.supervision.events import (
    DestinationEjected,
    DestinationReadmitted,
    EgressSuspected,
)
from tests.cluster.fleet import INTERVAL, Fleet, ejected, traffic, within
from tests.support.redis_servers import RedisServer

pytestmark = pytest.mark.e2e

FOLLOWED_SECONDS = 2.0
"""How long all may take to follow, on a machine that does other things; see ``tests/timing``."""

QUIET_SECONDS = 0.4
"""How long nothing must happen."""


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


async def test_votes_of_half_the_processes_eject_in_all(server: RedisServer) -> None:
    """At once, to the end that the deciding process set, and the event tells of the votes."""
    # Good probes would end the ejection, and one that is unhealthy cannot be ejected.
    async with Fleet([server.url] * 4, fall=1000) as processes:
        for one in processes:
            one.down = {one[1].url}
        await traffic(processes, server)
        processes[0].fail(1)
        await asyncio.sleep(QUIET_SECONDS)
        assert [one.ejected for one in processes] == [[1], [], [], []]

        processes[1].fail(1)
        await within(FOLLOWED_SECONDS, lambda: ejected(processes, 1))
        ends = [one[1].ejected_until or 0 for one in processes]
        assert max(ends) - min(ends) < 0.05
        told = [one for one in processes[3].told if isinstance(one, DestinationEjected)]
        assert [one.reason for one in told] == ["by votes of 2 processes: connect"]
        assert 29 < told[0].seconds <= 30


async def test_ejection_ends_for_all_at_a_good_probe_and_when_asked_for(
    server: RedisServer,
) -> None:
    """The process that probes it tells the others; so does the one that an operator asked."""
    async with Fleet([server.url] * 3, fall=1000) as processes:
        for one in processes:
            one.down = {one[1].url, one[2].url}
        await traffic(processes, server)
        for one in processes[:2]:
            one.fail(1)
        await within(FOLLOWED_SECONDS, lambda: ejected(processes, 1))
        processes[2].supervisor.readmit(processes[2][1])
        await within(FOLLOWED_SECONDS, lambda: ejected(processes))

        for one in processes[:2]:
            one.fail(2)
        await within(FOLLOWED_SECONDS, lambda: ejected(processes, 2))
        for one in processes:
            one.down = {one[1].url}
        await within(10 * INTERVAL, lambda: ejected(processes))
        reasons = {
            event.reason
            for one in processes
            for event in one.told
            if isinstance(event, DestinationReadmitted)
        }
        assert reasons >= {
            "asked for",
            "asked for in another process",
            "a good probe",
            "a good probe in another process",
        }


@pytest.mark.slow
async def test_process_with_broken_egress_takes_nothing_from_others(server: RedisServer) -> None:
    """Not with its votes, whose end it is told, nor with probes; it probes for itself."""
    async with Fleet([server.url] * 12) as processes:
        await traffic(processes, server)
        broken = processes[5]
        broken.down = None
        broken.probed.clear()
        broken.fail(0, 1, 2, 3)
        await within(3, lambda: EgressSuspected in broken.kinds())
        await asyncio.sleep(2 * INTERVAL)

        assert not any(one.told for one in processes if one is not broken)
        assert broken.probed
        # It votes on a destination that really fails, and is not counted.
        processes[0].fail(3)
        await asyncio.sleep(QUIET_SECONDS)
        assert processes[1].ejected == []


@pytest.mark.slow
async def test_max_share_holds_for_all_processes_together(server: RedisServer) -> None:
    """Whatever they vote for at the same time."""
    async with Fleet([server.url] * 4, destinations=8, max_share=0.25, fall=1000) as processes:
        for one in processes:
            one.down = {each.url for each in one.pool.destinations[:4]}
        await traffic(processes, server, 8)
        for n, one in enumerate(processes):
            one.fail(*((k + n) % 4 for k in range(4)))
        await asyncio.sleep(1.5)  # every vote has been counted again

        kept = [str(one) for one in server.client.hkeys("{shop}:state:billing")]
        assert len([one for one in kept if "ejection:" in one]) == 2


async def test_retry_after_is_followed_at_once(server: RedisServer) -> None:
    """By those that respect it; no vote is needed, as the destination says so itself."""
    async with Fleet([server.url] * 2, respect_retry_after=True) as processes:
        processes[0].supervisor.cool_down(processes[0][1], 20)

        await within(FOLLOWED_SECONDS, lambda: ejected(processes, 1))
        assert processes[1][1].cooling
        await asyncio.sleep(1.5 * INTERVAL)
        assert ejected(processes, 1)


async def test_ejections_that_are_not_shared_stay_local(server: RedisServer) -> None:
    """Nothing is written and nothing is followed."""
    async with Fleet([server.url] * 3, fall=1000, shared="off") as processes:
        for one in processes:
            one.down = {one[1].url}
        processes[0].fail(1)
        processes[1].fail(1)
        await asyncio.sleep(QUIET_SECONDS)

        assert [one.ejected for one in processes] == [[1], [1], []]
        assert not server.client.exists("{shop}:votes:billing")
        # A process that does not take part does not follow those that do.
        for one in processes[:2]:
            one.supervisor.configure(EjectionSettings(), 0, panic=True, keep=300)
            one.supervisor.failed(one[1], "connect")
        await within(
            2,
            lambda: bool(
                server.client.hexists("{shop}:state:billing", f"ejection:{processes[0][1].url}")
            ),
        )
        await asyncio.sleep(QUIET_SECONDS)
        assert processes[2].ejected == []


async def test_votes_are_in_an_emptied_store_again(server: RedisServer) -> None:
    """So that the votes before and after decide together."""
    async with Fleet([server.url] * 2, fall=1000) as processes:
        for one in processes:
            one.down = {one[1].url}
        await traffic(processes, server)
        processes[0].fail(1)
        await within(3, lambda: bool(server.client.exists("{shop}:votes:billing")))
        server.client.flushall()
        processes[1].fail(1)

        await within(4, lambda: ejected(processes, 1))


async def test_ejection_holds_for_a_destination_that_is_found_later(server: RedisServer) -> None:
    """A source gave it to another process first."""
    async with Fleet([server.url] * 2, respect_retry_after=True) as (first, second):
        all_of_them = [one.settings for one in second.pool.destinations]
        second.supervisor.replace(all_of_them[:2])
        first.supervisor.cool_down(first[3], 20)
        await within(3, lambda: first[3].url in second.state.held("billing", "ejection"))
        second.supervisor.replace(all_of_them)

        await within(4, lambda: second.ejected == [3])


async def test_vote_is_withdrawn_when_the_destination_serves_again(server: RedisServer) -> None:
    """Also while another vote of the process has been decided."""
    async with Fleet([server.url] * 3, fall=1000) as processes:
        for one in processes:
            one.down = {one[1].url, one[2].url}
        await traffic(processes, server)
        for one in processes[:2]:
            one.fail(1)
        await within(3, lambda: ejected(processes, 1))
        first = processes[0]
        first.fail(2)

        def votes() -> int:
            mine = server.client.hget("{shop}:votes:billing", first.state.process)
            return len(re.findall(r'"[0-9a-f]{32}":', str(mine)))

        await within(3, lambda: votes() == 2)
        first.supervisor.readmit(first[2])
        await within(3, lambda: votes() == 1)


async def test_process_keeps_to_max_share_with_what_it_follows(server: RedisServer) -> None:
    """An ejection of its own ends for one that enough processes voted for."""
    async with Fleet([server.url] * 3, fall=1000) as processes:
        for one in processes:
            one.down = {each.url for each in one.pool.destinations}
        await traffic(processes, server)
        processes[2].fail(0, 1)
        assert processes[2].ejected == [0, 1]
        for one in processes[:2]:
            one.fail(3)

        await within(3, lambda: ejected(processes[:2], 3))
        await within(3, lambda: processes[2].ejected == [1, 3])


async def test_long_retry_after_stops_no_votes_for_ever(server: RedisServer) -> None:
    """It holds for ``max_time``, here and for the votes."""
    settings: dict[str, Any] = {"respect_retry_after": True, "base_time": 0.5, "max_time": 0.5}
    async with Fleet([server.url] * 2, fall=1000, **settings) as processes:
        await traffic(processes, server)
        processes[0].supervisor.cool_down(processes[0][1], 1e6)
        await within(3, lambda: ejected(processes, 1))
        await within(4, lambda: ejected(processes))
        for one in processes:
            one.fail(1)

        await within(FOLLOWED_SECONDS, lambda: ejected(processes, 1))
        reasons = [one.reason for one in processes[0].told if isinstance(one, DestinationEjected)]
        await within(3, lambda: server.client.zcard("{shop}:members") == 2)
        assert reasons[0] == "retry_after"


@pytest.mark.parametrize("what", ["another key", "copied", "old", "unsigned"])
async def test_vote_that_no_process_has_signed_ejects_nothing(
    server: RedisServer, what: str
) -> None:
    """It is removed, and the votes of two processes decide as before."""
    async with Fleet([server.url] * 3, fall=1000) as processes:
        first, second, third = processes
        for one in processes:
            one.down = {one[1].url}
        await traffic(processes, server)
        name, key = third.state.process, "{shop}:votes:billing"
        digest, now = first.state.hide(first[1].url), first.state.now()
        body = {"at": now - (10_000 if what == "old" else 0), "of": {digest: now + 30_000}}
        signer = first.cluster.signer if what == "old" else Signer(b"another-key-of-others", "shop")
        forged = signer.sign(("votes", "billing", name), body)
        first.fail(1)
        if what == "copied":
            await within(3, lambda: bool(server.client.hget(key, first.state.process)))
            forged = cast("bytes", server.client.hget(key, first.state.process))
        if what == "unsigned":
            forged = f'"{digest}":{now + 30_000}'.encode()
        server.client.hset(key, name, forged)
        await asyncio.sleep(1.5)  # all votes have been counted again
        assert [one.ejected for one in processes] == [[1], [], []]
        if what != "old":
            assert server.client.hget(key, name) is None

        second.fail(1)
        await within(FOLLOWED_SECONDS, lambda: ejected(processes, 1))
