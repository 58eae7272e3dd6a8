"""Changes of probes and of the limits of destinations on a running upstream."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastapi_proxy_di import Balancer
from fastapi_proxy_di.settings import DestinationSettings
from fastapi_proxy_di.supervision.events import DestinationUp, Event, LimitHit
from tests.support.gateways import billing, gateway, until
from tests.support.http_client import fetch
from tests.support.origins import Connection, ScriptedOrigin, response_bytes


@pytest.mark.e2e
async def test_configure_destination_limits_requests_at_once() -> None:
    """From the next pick on; requests under way go on."""
    release = asyncio.Event()

    async def script(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await release.wait()
            await connection.send(response_bytes(body=b"ok"))

    heard: list[Event] = []
    async with (
        ScriptedOrigin(script) as small,
        ScriptedOrigin() as large,
        gateway(small.url, large.url, policy="first") as gate,
    ):
        gate.balancer.subscribe(heard.append)
        first = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        await until(lambda: small.requests)
        gate.balancer.configure_destination(small.url + "/", max_in_flight=1)
        await fetch(gate.address, target="/billing/x")
        gate.balancer.configure_destination(small.url, max_in_flight=None)
        third = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        await until(lambda: len(small.requests) == 2)
        release.set()
        statuses = [(await first).status, (await third).status]

    assert statuses == [200, 200]
    assert len(large.requests) == 1
    assert heard == [LimitHit("billing", small.url, "max_in_flight")]


@pytest.mark.e2e
async def test_configure_destination_limits_requests_per_window() -> None:
    """When all are used up: 503, with the seconds until the window turns in Retry-After."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, max_requests_window=1000) as gate,
    ):
        gate.balancer.configure_destination(origin.url, max_requests=2)
        replies = [await fetch(gate.address, target="/billing/x") for _ in range(3)]
        gate.balancer.configure_destination(origin.url, max_requests=3)
        more = await fetch(gate.address, target="/billing/x")

    assert [reply.status for reply in replies] == [200, 200, 503]
    assert 900 < int(replies[2].one(b"retry-after") or 0) <= 1000
    assert more.status == 200


@pytest.mark.e2e
async def test_configure_destination_keeps_the_rest() -> None:
    """Counts, health, connections, and settings that are not given."""
    async with (
        ScriptedOrigin() as one,
        ScriptedOrigin() as two,
        gateway(
            destinations=[DestinationSettings(url=one.url, weight=3, tier=1), two.url],
            policy="first",
        ) as gate,
    ):
        await fetch(gate.address, target="/billing/x")
        before = gate.balancer.destinations
        await gate.balancer.drain(one.url)
        gate.balancer.configure_destination(one.url, weight=5, max_requests=7, tier=0)
        changed = before[0]
        await gate.balancer.drain(two.url)
        gate.balancer.undrain(two.url)
        await fetch(gate.address, target="/billing/x")

        after = gate.balancer.destinations

    assert after == before
    assert (changed.weight, changed.max_requests, changed.tier) == (5, 7, 0)
    assert changed.draining
    assert (one.requests, two.connections, len(two.requests)) == ([], 1, 2)


@pytest.mark.parametrize(
    ("url", "changes", "text"),
    [
        ("http://10.0.0.9", {"weight": 1}, "has no destination"),
        ("http://10.0.0.1", {"weight": 0}, "weight"),
        ("http://10.0.0.1", {"max_requests": 0}, "max_requests"),
        ("http://10.0.0.1", {"speed": 1}, "speed"),
    ],
)
async def test_configure_destination_refuses_invalid_values(
    url: str, changes: dict[str, Any], text: str
) -> None:
    """Nothing is changed then."""
    async with Balancer.from_settings(billing("http://10.0.0.1")) as balancer:
        with pytest.raises(ValueError, match=text):
            balancer.configure_destination(url, **changes)

        assert balancer.destinations[0].weight == 1


async def test_configure_health_turns_probes_on_and_off() -> None:
    """On: all are probed at once. Off: no destination stays unhealthy."""
    heard: list[Event] = []

    async def script(connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            await connection.send(response_bytes(200 if received.target == b"/well" else 503))

    async with (
        ScriptedOrigin(script) as origin,
        Balancer.from_settings(billing(origin.url)) as balancer,
    ):
        assert balancer.health.path is None
        balancer.subscribe(heard.append)
        balancer.configure_health(path="/sick", interval="1h")
        await until(lambda: balancer.status().destinations[0].healthy is False)
        balancer.configure_health(path="/well")
        await until(lambda: balancer.status().destinations[0].healthy)
        balancer.configure_health(path="/sick", fall=1)
        await until(lambda: balancer.status().destinations[0].healthy is False)
        balancer.configure_health(path=None)
        healthy = balancer.status().destinations[0].healthy
        kept = balancer.health.interval

    assert healthy
    assert kept == 3600
    assert [seen.target for seen in origin.requests] == [b"/sick", b"/well", b"/sick"]
    assert isinstance(heard[-2], DestinationUp)


@pytest.mark.parametrize(("own", "left"), [(None, 60), (7, 7)])
async def test_configure_health_moves_the_window_with_the_interval(
    own: float | None, left: float
) -> None:
    """Unless ``max_requests_window`` is set."""
    settings = billing("http://10.0.0.1", max_requests=5, max_requests_window=own)
    async with Balancer.from_settings(settings) as balancer:
        balancer.configure_health(interval=60)
        found = balancer._running.supervisor.window_left

    assert found == pytest.approx(left, abs=1)


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"path": "no-slash"}, "path"), ({"interval": 0}, "interval"), ({"pace": 1}, "pace")],
)
async def test_configure_health_refuses_invalid_values(changes: dict[str, Any], text: str) -> None:
    """Nothing is changed then."""
    async with Balancer.from_settings(billing("http://10.0.0.1")) as balancer:
        before = balancer.health
        with pytest.raises(ValueError, match=text):
            balancer.configure_health(**changes)

        assert balancer.health is before


async def test_configure_health_keeps_the_probes_of_latency() -> None:
    """The policy ``latency`` needs them."""
    async with (
        ScriptedOrigin() as origin,
        Balancer.from_settings(billing(origin.url, policy="latency")) as balancer,
    ):
        with pytest.raises(ValueError, match="latency"):
            balancer.configure_health(path=None)

        assert balancer.health.enabled


async def test_failing_listener_harms_nothing() -> None:
    """Other listeners get the event, and the change is made."""
    heard: list[Event] = []

    def fail(event: Event) -> None:
        raise RuntimeError("broken")

    async with Balancer.from_settings(billing("http://10.0.0.1", "http://10.0.0.2")) as balancer:
        balancer.subscribe(fail)
        end = balancer.subscribe(heard.append)
        await balancer.drain("http://10.0.0.1")
        end()
        balancer.undrain("http://10.0.0.1")

        assert len(heard) == 1
        assert len(balancer.available) == 2
