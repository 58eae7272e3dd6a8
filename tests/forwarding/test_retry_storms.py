"""Retry storms: a thousand requests during an outage, on real sockets."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.support.gateways import Gateway, gateway
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Connection, Script, ScriptedOrigin, always, response_bytes
from tests.support.servers import dead_port
from tests.support.websocket_client import shake_hands

pytestmark = pytest.mark.e2e


REQUESTS = 600


async def _reset(connection: Connection) -> None:
    await connection.read_request()
    connection.reset()


async def _close(connection: Connection) -> None:
    await connection.read_request()


async def _storm(gate: Gateway, method: str, body: bytes | None) -> set[int]:
    """Send many requests over twenty connections; give their statuses."""
    statuses: set[int] = set()

    async def one_client() -> None:
        async with connect(gate.address) as client:
            for _ in range(REQUESTS // 20):
                await client.send(request(method, "/billing/x", body=body))
                statuses.add((await client.read_response(method)).status)

    await asyncio.gather(*(one_client() for _ in range(20)))
    return statuses


@pytest.mark.parametrize(
    ("script", "status"),
    [(always(response_bytes(503, b"busy")), 503), (_reset, 502), (_close, 502)],
    ids=["503", "reset", "close"],
)
async def test_storm_of_failures_stays_within_the_budget(script: Script, status: int) -> None:
    """All requests fail; the upstream gets at most 1.2 times the requests."""
    async with AsyncExitStack() as stack:
        origins = [await stack.enter_async_context(ScriptedOrigin(script)) for _ in range(3)]
        gate = await stack.enter_async_context(
            gateway(
                *(origin.url for origin in origins),
                retries={
                    "attempts": 5,
                    "statuses": [503],
                    "backoff": 0,
                    "budget_minimum": 0,
                },
            )
        )
        statuses = await _storm(gate, "GET", None)
    sent = sum(len(origin.requests) for origin in origins)

    assert statuses == {status}
    assert REQUESTS < sent <= 1.2 * REQUESTS


@pytest.mark.parametrize("script", [always(response_bytes(503, b"busy")), _reset, _close])
async def test_storm_never_sends_a_post_twice(script: Script) -> None:
    """Whatever the attempts and the budget."""
    async with AsyncExitStack() as stack:
        origins = [await stack.enter_async_context(ScriptedOrigin(script)) for _ in range(3)]
        gate = await stack.enter_async_context(
            gateway(
                *(origin.url for origin in origins),
                retries={
                    "attempts": 5,
                    "statuses": [503],
                    "backoff": 0,
                    "budget_share": 1,
                    "budget_minimum": 10_000,
                },
            )
        )
        await _storm(gate, "POST", b"hello")

    assert sum(len(origin.requests) for origin in origins) == REQUESTS


@pytest.mark.parametrize(
    ("destinations", "dials"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (8, 4)]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_refused_dials_are_limited(destinations: int, dials: int, method: str) -> None:
    """Four dials per request, each at another destination, without the budget."""
    dead = [f"http://127.0.0.1:{dead_port()}" for _ in range(destinations)]
    async with gateway(
        *dead,
        ejection={"enabled": False},
        retries={"attempts": 0, "budget_share": 0, "budget_minimum": 0},
    ) as gate:
        reply = await fetch(gate.address, method, "/billing/x", body=b"x")
        failures = sorted(one.failures for one in gate.balancer.destinations)

    assert reply.status == 502
    assert sum(failures) == dials
    assert failures[-1] == 1


async def test_refused_dials_of_a_websocket_go_elsewhere() -> None:
    """A handshake is retried like any request; if all fail, it is refused with 502."""
    dead = [f"http://127.0.0.1:{dead_port()}" for _ in range(5)]
    async with gateway(*dead, ejection={"enabled": False}) as gate:
        async with connect(gate.address) as client:
            refusal = await shake_hands(client, "/billing/x")
        failures = sum(one.failures for one in gate.balancer.destinations)

    assert refusal.status == 502
    assert failures == 4


async def test_handshake_that_breaks_off_is_tried_elsewhere() -> None:
    """It is a GET without a body; the refusal of the second destination is forwarded."""
    async with (
        ScriptedOrigin(_close) as bad,
        ScriptedOrigin(always(response_bytes(401, b"who?"))) as good,
        gateway(bad.url, good.url, policy="first") as gate,
        connect(gate.address) as client,
    ):
        refusal = await shake_hands(client, "/billing/x")

    assert refusal.status == 401
    assert (len(bad.requests), len(good.requests)) == (1, 1)
