"""Changes of a running upstream, on real sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastapi_proxy_di.balancing.registry import POLICIES
from fastapi_proxy_di.settings import DestinationSettings
from fastapi_proxy_di.supervision.events import (
    DestinationDraining,
    DestinationUndrained,
    Event,
    LimitHit,
)
from tests.support.gateways import Gateway, gateway, until
from tests.support.http_client import fetch
from tests.support.origins import Connection, Script, ScriptedOrigin, always, response_bytes
from tests.support.requests_in_flight import begin
from tests.support.servers import dead_port

pytestmark = pytest.mark.e2e


class Holding:
    """Keeps connections, responds with their number, and holds ``/held`` until ``go``."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            if received.target == b"/held":
                await self.go.wait()
            await connection.send(response_bytes(body=b"%d" % connection.number))


async def body_of(gate: Gateway, path: str = "x") -> bytes:
    """Give the body of a GET through the gateway."""
    return (await fetch(gate.address, target=f"/billing/{path}")).body


async def test_replace_destinations_keeps_connections_counts_and_health() -> None:
    """One stays with a new weight, one is removed, one is added."""
    async with (
        ScriptedOrigin(Holding()) as stays,
        ScriptedOrigin(Holding()) as goes,
        ScriptedOrigin(Holding()) as comes,
        gateway(stays.url, goes.url, policy="first") as gate,
    ):
        balancer = gate.balancer
        assert [await body_of(gate), await body_of(gate)] == [b"1", b"1"]
        kept, gone = balancer.destinations
        kept.latency_ms = 7.0
        before = balancer.destinations
        balancer.replace_destinations(
            [DestinationSettings(url=stays.url, weight=5), comes.url],
        )
        after = await body_of(gate)

        assert (after, stays.connections) == (b"1", 1)
        assert before == (kept, gone)
        assert balancer.destinations[0] is kept
        assert balancer.destinations[1].url == comes.url
        assert (kept.successes, kept.latency_ms, kept.weight) == (3, 7.0, 5)
        with pytest.raises(ValueError, match="has no destination"):
            await balancer.drain(gone.url)


async def test_replaced_destination_finishes_its_work() -> None:
    """A request under way gets its response, then its connection is closed."""
    script = Holding()
    async with (
        ScriptedOrigin(script) as goes,
        ScriptedOrigin(Holding()) as comes,
        gateway(goes.url) as gate,
    ):
        held = asyncio.create_task(body_of(gate, "held"))
        await until(lambda: goes.requests, 10)
        gate.balancer.replace_destinations([comes.url])
        await body_of(gate)
        in_flight = goes.open_connections
        script.go.set()

        assert await held == b"1"
        assert in_flight == 1
        assert (len(goes.requests), len(comes.requests)) == (1, 1)
        await goes.all_left()


async def test_replace_destinations_is_all_or_nothing() -> None:
    """Invalid destinations change nothing."""
    async with ScriptedOrigin(Holding()) as origin, gateway(origin.url) as gate:
        before = gate.balancer.destinations
        for wrong in ([], [origin.url, f"{origin.url}/"], [origin.url, "ftp://other"]):
            with pytest.raises(ValueError, match=r"destination|address|ftp"):
                gate.balancer.replace_destinations(wrong)

        assert gate.balancer.destinations is before


async def test_drain_is_one_event_even_when_the_destination_is_removed_later() -> None:
    """The removal of a draining destination emits nothing."""
    async with (
        ScriptedOrigin(Holding()) as one,
        ScriptedOrigin(Holding()) as two,
        gateway(one.url, two.url) as gate,
    ):
        events: list[Event] = []
        end = gate.balancer.subscribe(events.append)
        await gate.balancer.drain(one.url)
        await gate.balancer.drain(one.url)
        gate.balancer.undrain(one.url)
        await gate.balancer.drain(one.url)
        gate.balancer.replace_destinations([two.url])
        end()
        await gate.balancer.drain(two.url)

    drained = DestinationDraining("billing", one.url)
    assert events == [drained, DestinationUndrained("billing", one.url), drained]


async def test_drain_waits_until_the_destination_is_empty() -> None:
    """With a timeout the drain may be awaited; requests under way get their response."""
    script = Holding()
    async with ScriptedOrigin(script) as origin, gateway(origin.url) as gate:
        held = asyncio.create_task(body_of(gate, "held"))
        await until(lambda: origin.requests, 10)
        empty = asyncio.ensure_future(gate.balancer.drain(origin.url, timeout=60))
        refused = await fetch(gate.address, target="/billing/x")
        waiting = not empty.done()
        script.go.set()
        await asyncio.wait_for(empty, 10)

        assert (refused.status, waiting) == (503, True)
        assert await held == b"1"
        assert gate.balancer.destinations[0].in_flight == 0


@pytest.mark.parametrize("policy", sorted(POLICIES))
async def test_peek_gives_the_next_pick(policy: str) -> None:
    """However often it is called; also if the policy chooses a full destination."""
    async with (
        ScriptedOrigin(Holding()) as one,
        ScriptedOrigin(Holding()) as two,
        ScriptedOrigin(Holding()) as three,
        gateway(
            destinations=[
                DestinationSettings(url=one.url, weight=2),
                two.url,
                three.url,
                DestinationSettings(
                    url=f"http://127.0.0.1:{dead_port()}", max_in_flight=1, weight=9
                ),
            ],
            policy=policy,
            health={"path": None if policy != "latency" else "/"},
        ) as gate,
    ):
        balancer = gate.balancer
        begin(balancer.destinations[3])
        seen = [(balancer.peek(), balancer.peek(), balancer.pick()) for _ in range(30)]
        balancer.destinations[3].end()

    assert [looks for looks in seen if len(set(looks)) > 1] == []
    assert None not in {picked for *_, picked in seen}


async def test_peek_reports_no_limit_and_pick_does() -> None:
    """``peek`` emits no event and does not advance the policy."""
    async with (
        ScriptedOrigin(Holding()) as one,
        ScriptedOrigin(Holding()) as two,
        gateway(
            destinations=[DestinationSettings(url=one.url, max_in_flight=1), two.url],
            policy="first",
        ) as gate,
    ):
        balancer = gate.balancer
        events: list[Event] = []
        balancer.subscribe(events.append)
        first, second = balancer.destinations
        begin(first)
        looks = {balancer.peek() for _ in range(3)}
        silent = list(events)
        picked = balancer.pick()
        first.end()

    assert (looks, silent, picked) == ({second}, [], second)
    assert events == [LimitHit("billing", first.url, "max_in_flight")]


async def test_added_destination_gets_no_request_before_its_probe() -> None:
    """Its first result decides: a good one lets it take requests, a bad one does not."""
    probes: dict[str, asyncio.Event] = {"good": asyncio.Event(), "bad": asyncio.Event()}

    def starting(name: str) -> Script:
        async def script(connection: Connection) -> None:
            while True:
                received = await connection.read_request()
                if received.target == b"/health":
                    await probes[name].wait()
                status = 503 if name == "bad" else 200
                await connection.send(response_bytes(status, name.encode()))

        return script

    async with (
        ScriptedOrigin(Holding()) as old,
        ScriptedOrigin(starting("good")) as good,
        ScriptedOrigin(starting("bad")) as bad,
        gateway(
            old.url,
            policy="round_robin",
            health={"path": "/health", "interval": 60, "timeout": 60},
        ) as gate,
    ):
        gate.balancer.replace_destinations([old.url, good.url, bad.url])
        before = {await body_of(gate) for _ in range(6)}
        available = [one.available for one in gate.balancer.status().destinations]
        for event in probes.values():
            event.set()
        await until(lambda: not gate.balancer.destinations[2].healthy)
        await until(lambda: len(gate.balancer.available) == 2)
        after = {await body_of(gate) for _ in range(6)}

    assert (before, available) == ({b"1"}, [True, False, False])
    assert after == {b"1", b"good"}


@pytest.mark.parametrize(
    "how",
    [
        {"affinity": {"header": "x-tenant"}},
        {"affinity": {"header": "x-tenant", "on_missing": "fail"}},
        {"policy": "hash", "hash_key": "header:x-tenant"},
    ],
    ids=["affinity", "affinity that fails", "hash"],
)
async def test_added_destination_gets_no_keys_before_its_probe(how: dict[str, Any]) -> None:
    """Until then a key of the added destination goes where it went before."""
    probe = asyncio.Event()

    async def starting(connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            if received.target == b"/health":
                await probe.wait()
            await connection.send(response_bytes(body=b"new"))

    async def bodies(gate: Gateway) -> list[bytes]:
        return [
            (
                await fetch(gate.address, target="/billing/x", headers=[(b"x-tenant", b"%d" % n)])
            ).body
            for n in range(30)
        ]

    async with (
        ScriptedOrigin(always(response_bytes(body=b"old"))) as old,
        ScriptedOrigin(starting) as new,
        gateway(old.url, health={"path": "/health", "interval": 60, "timeout": 60}, **how) as gate,
    ):
        gate.balancer.replace_destinations([old.url, new.url])
        before = await bodies(gate)
        probe.set()
        await until(lambda: len(gate.balancer.available) == 2)
        after = await bodies(gate)

    assert before == [b"old"] * 30
    assert set(after) == {b"old", b"new"}


async def test_added_destination_is_used_at_once_where_nothing_else_is() -> None:
    """All addresses are replaced, or probes are off."""
    never = asyncio.Event()

    async def unprobed(connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            if received.target == b"/health":
                await never.wait()
            await connection.send(response_bytes(body=b"new"))

    async with (
        ScriptedOrigin(Holding()) as old,
        ScriptedOrigin(unprobed) as new,
        ScriptedOrigin(unprobed) as newer,
        gateway(old.url, health={"path": "/health", "interval": 60, "timeout": 60}) as gate,
    ):
        gate.balancer.replace_destinations([new.url])
        alone = await body_of(gate)
        gate.balancer.replace_destinations([new.url, newer.url])
        gate.balancer.configure_health(path=None)
        probed = len(gate.balancer.available)
        gate.balancer.replace_destinations([new.url, newer.url, old.url])
        off = len(gate.balancer.available)

    assert alone == b"new"
    assert (probed, off) == (2, 3)
