"""A drain or a weight that one process is asked for holds in all, and outlives them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import pytest

from fastapi_proxy_di import DestinationSettings
from fastapi_proxy_di.integration.lifespan import RUNTIME
from tests.cluster.shared_gateways import A, B, shared_gateway, shared_gateways
from tests.cluster.sharing import until
from tests.support.gateways import Gateway
from tests.support.http_client import fetch
from tests.support.redis_servers import RedisServer
from tests.support.servers import StartupFailed

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


async def act(gateway: Gateway, action: str, **body: Any) -> dict[str, Any]:
    """Ask the status router for an action, and give its response."""
    response = await fetch(
        gateway.address,
        "POST",
        f"/upstreams/billing/{action}",
        headers=[(b"content-type", b"application/json")],
        body=json.dumps(body).encode(),
    )
    assert response.status == 200
    result: dict[str, Any] = response.json()
    return result


def state_of(gateway: Gateway) -> dict[str, tuple[bool, float]]:
    """Give whether each destination drains, and its weight."""
    return {one.url: (one.draining, one.weight) for one in gateway.balancer.destinations}


async def test_changes_hold_in_all_processes_within_200_ms(server: RedisServer) -> None:
    """Drain, undrain and weight, also in processes that start later with other settings."""
    async with shared_gateways(server.url, 3) as gateways:
        one, two, _ = gateways
        _ = one.balancer.drain(B)
        await until(lambda: all(state_of(each)[B][0] for each in gateways), 0.2)
        two.balancer.configure_destination(A, weight=3)
        await until(lambda: all(state_of(each)[A][1] == 3 for each in gateways), 0.2)
        (shown,) = [one for one in two.balancer.status().destinations if one.url == B]
        assert shown.drained_by
        assert shown.drained_at is not None
        assert abs(shown.drained_at.timestamp() - time.time()) < 5
        page = (await fetch(two.address, target="/upstreams/")).body.decode()
        assert f"by {shown.drained_by} <time" in page

    async with shared_gateways(server.url, 2) as gateways:
        one, two = gateways
        assert state_of(one) == state_of(two) == {A: (False, 3.0), B: (True, 1.0)}
        two.balancer.undrain(B)
        await until(lambda: not state_of(one)[B][0], 0.2)

        one.balancer.replace_destinations([A])
        assert list(state_of(one)) == [A]
        assert list(state_of(two)) == [A, B], "destinations are each process's own"
        _ = one.balancer.drain(A)
        await until(lambda: state_of(two)[A][0], 0.2)
        two.balancer.replace_destinations([DestinationSettings(url=B)])
        two.balancer.replace_destinations([DestinationSettings(url=A, weight=9)])
        assert state_of(two) == {A: (True, 3.0)}


async def test_action_says_how_many_processes_have_applied_it(server: RedisServer) -> None:
    """All that beat are waited for; one that does not read is named after two seconds."""
    async with shared_gateways(server.url, 3) as gateways:
        began = time.monotonic()
        response = await act(gateways[0], "drain", destination=B)
        assert response["processes"] == {"applied": 3, "of": 3, "missing": []}
        assert time.monotonic() - began < 1.5
        assert all(state_of(each)[B][0] for each in gateways)

        response = await act(gateways[1], "weight", destination=A, weight=2)
        assert response["processes"]["applied"] == 3
        assert (await act(gateways[1], "readmit", destination=A))["processes"] is None

        server.kill()
        response = await act(gateways[1], "undrain", destination=B)
        assert response["processes"] is None
        assert state_of(gateways[1])[B] == (False, 1.0)
        server.start()
        await until(lambda: not any(state_of(each)[B][0] for each in gateways), 3.0)


async def test_change_is_written_also_if_nobody_waits_for_it_any_more(server: RedisServer) -> None:
    """A client that leaves ends its own wait, not the write that all others need."""
    async with shared_gateways(server.url, 2) as (one, two):
        shared = one.balancer._running.shared
        assert shared is not None
        server.pause()
        _ = one.balancer.drain(B)
        waiting = asyncio.create_task(shared.written())
        await asyncio.sleep(0)  # it waits
        waiting.cancel()
        await asyncio.wait({waiting})
        server.resume()

        await until(lambda: state_of(two)[B][0], 2.0)


async def test_action_names_the_process_that_has_not_applied_it(server: RedisServer) -> None:
    """One that beats and does not read, after two seconds; the others have applied it."""
    async with shared_gateways(server.url, 3) as gateways:
        cluster = getattr(gateways[2].app, RUNTIME).cluster
        (reader,) = [one for one in cluster._tasks if "reader" in one.get_name()]
        reader.cancel()
        began = time.monotonic()
        response = await act(gateways[0], "drain", destination=B)
        name = cluster.state.process.rpartition(":")[0]
        assert response["processes"] == {"applied": 2, "of": 3, "missing": [name]}
        assert 2 <= time.monotonic() - began < 4
        assert [state_of(each)[B][0] for each in gateways] == [True, True, False]


async def test_store_that_comes_and_goes_costs_no_request(server: RedisServer) -> None:
    """Requests under load succeed while the store is stopped, killed, and back."""
    async with shared_gateway(server.url, destinations=(A,)) as gateway:
        failed: list[int] = []
        done = 0
        ends = asyncio.Event()

        async def load() -> None:
            nonlocal done
            while not ends.is_set():
                response = await fetch(gateway.address, target="/billing/x")
                done += 1
                if response.status != 200:
                    failed.append(response.status)

        clients = [asyncio.create_task(load()) for _ in range(4)]
        for break_, mend in ((server.pause, server.resume), (server.kill, server.start)):
            break_()
            await asyncio.sleep(1.2)
            mend()
            await asyncio.sleep(0.5)
        server.pause()
        ends.set()
        await asyncio.gather(*clients)
        began = time.monotonic()
    assert time.monotonic() - began < 3, "the end does not wait for the store"
    server.resume()
    assert failed == []
    assert done > 100


async def test_missing_extra_is_a_fault_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the setting and the command that mends it."""
    for name in [one for one in sys.modules if one.startswith("fastapi_proxy_di.cluster.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    monkeypatch.setitem(sys.modules, "redis.exceptions", None)

    mend = r"cluster\.store .*pip install 'fastapi-proxy-di\[redis\]'"
    with pytest.raises(StartupFailed, match=mend):
        async with shared_gateway("redis://127.0.0.1:1"):
            pass
