"""Limits, retries and new rules of requests to dynamic destinations."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fastapi_proxy_di import Balancer, LimitExceeded, UpstreamClosed
from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.upstream.composition import compose
from fastapi_proxy_di.upstream.rules import make_rules
from tests.support.gateways import billing, until
from tests.support.given import Held, address_of_lease, given_app, send_to, to
from tests.support.http_client import connect, fetch
from tests.support.origins import Connection, ScriptedOrigin, response_bytes
from tests.support.servers import dead_port, free_port
from tests.websocket.gateways import serving

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("queue", [0, 9])
async def test_addresses_in_use_are_bounded(queue: int) -> None:
    """One more gets 503 at once, with the setting in the status; an idle one makes room."""
    held = Held()
    limits = {"dynamic_destinations": 2, "queue": queue, "queue_timeout": 60}
    app = given_app(limits=limits)
    async with (
        ScriptedOrigin(held) as one,
        ScriptedOrigin(held) as two,
        ScriptedOrigin() as three,
        serving(app) as gateway,
        connect(gateway.address) as first,
        connect(gateway.address) as second,
    ):
        await send_to(first, one.url)
        await send_to(second, two.url)
        await until(lambda: one.requests and two.requests)
        refused = await fetch(gateway.address, target="/billing/x", headers=to(three.url))
        status = gateway.balancer.status()
        held.release.set()
        for client in (first, second):
            assert (await client.read_response("GET")).status == 200
        served = await fetch(gateway.address, target="/billing/x", headers=to(three.url))
        after = gateway.balancer.status()

    assert (refused.status, json.loads(refused.body)["failure"]) == (503, "limit_exceeded")
    assert refused.one(b"retry-after") == b"4"
    assert (status.dynamic_destinations, status.in_flight) == (2, 2)
    assert status.refused == {"limits.dynamic_destinations": 1}
    assert served.status == 200
    assert after.dynamic_destinations == 2


async def test_limits_of_requests_count_apart_from_the_pool() -> None:
    """The upstream's limit holds for all addresses together."""
    held = Held()
    async with (
        ScriptedOrigin() as pool,
        ScriptedOrigin(held) as one,
        ScriptedOrigin() as two,
        serving(given_app(pool.url, limits={"max_in_flight": 1})) as gateway,
        connect(gateway.address) as client,
    ):
        await send_to(client, one.url)
        await until(lambda: one.requests)
        refused = await fetch(gateway.address, target="/billing/x", headers=to(two.url))
        served = await fetch(gateway.address, target="/billing/x")
        held.release.set()
        await client.read_response("GET")

    assert (refused.status, served.status) == (503, 200)
    assert two.connections == 0


async def closing_second(connection: Connection) -> None:
    """Close each connection without a response to its second request."""
    await connection.read_request()
    await connection.send(response_bytes(200, b"ok"))
    await connection.read_request()


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 502)])
async def test_request_on_a_stale_connection_is_repeated_if_it_may_be(
    method: str, status: int
) -> None:
    """On a new connection to the same address; one that may not be sent twice is not."""
    async with ScriptedOrigin(closing_second) as origin, serving(given_app()) as gateway:
        await fetch(gateway.address, target="/billing/x", headers=to(origin.url))
        reply = await fetch(
            gateway.address,
            method,
            "/billing/x",
            to(origin.url),
            b"1" if method == "POST" else None,
        )

    assert reply.status == status
    assert origin.connections == (2 if status == 200 else 1)


async def failing(connection: Connection) -> None:
    """Close each connection without a response."""
    await connection.read_request()


async def test_request_is_not_repeated_otherwise() -> None:
    """Whatever ``retries`` says: there is no other destination."""
    app = given_app(retries={"attempts": 5, "statuses": "500-599"})
    unavailable = ScriptedOrigin(script=_unavailable)
    async with ScriptedOrigin(failing) as origin, unavailable, serving(app) as gateway:
        failed = await fetch(gateway.address, target="/billing/x", headers=to(origin.url))
        refused = await fetch(
            gateway.address, target="/billing/x", headers=to(f"http://127.0.0.1:{dead_port()}")
        )
        served = await fetch(gateway.address, target="/billing/x", headers=to(unavailable.url))

    assert (failed.status, refused.status, served.status) == (502, 502, 503)
    assert len(origin.requests) == len(unavailable.requests) == 1


async def _unavailable(connection: Connection) -> None:
    while True:
        await connection.read_request()
        await connection.send(response_bytes(503, b"", [(b"Retry-After", b"60")]))


async def test_failing_address_is_not_ejected() -> None:
    """It is asked again for each request, also after a Retry-After."""
    app = given_app(ejection={"consecutive": 1, "respect_retry_after": True, "statuses": "503"})
    async with ScriptedOrigin(_unavailable) as origin, serving(app) as gateway:
        for _ in range(3):
            await fetch(gateway.address, target="/billing/x", headers=to(origin.url))

    assert len(origin.requests) == 3


async def test_address_where_nobody_listens_yet_is_waited_for() -> None:
    """``retries.duration`` holds, as while a notebook starts."""
    port = free_port()
    app = given_app(retries={"duration": 30}, limits={"dynamic_destinations": 1})

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response_bytes(200, b"started"))
        await writer.drain()
        writer.close()

    async with serving(app) as gateway, connect(gateway.address) as client:
        await send_to(client, f"http://127.0.0.1:{port}")
        await until(lambda: gateway.balancer.status().dynamic_destinations)
        other = await fetch(gateway.address, target="/billing/x", headers=to("http://127.0.0.2:1"))
        async with await asyncio.start_server(serve, "127.0.0.1", port):
            reply = await client.read_response("GET")

    assert other.status == 503  # the address stays while it is waited for
    assert reply.body == b"started"


async def test_lease_of_an_address_is_counted() -> None:
    """It sends nothing, and keeps its place until it ends."""
    settings = billing(
        allowed_destinations={"networks": ["127.0.0.0/8"]}, limits={"dynamic_destinations": 1}
    )
    async with Balancer.from_settings(settings) as balancer:
        async with balancer.lease(destination="http://127.0.0.1:8888/") as lease:
            lease.failed("out of order")
            assert lease.url == "http://127.0.0.1:8888"
            assert balancer.status().in_flight == 1
            with pytest.raises(LimitExceeded):
                await address_of_lease(balancer, "http://127.0.0.1:8889")
        await address_of_lease(balancer, "http://127.0.0.1:8889")
        assert balancer.status().in_flight == 0
        assert balancer.status().dynamic_destinations == 1


def rules_of(running: Any, settings: UpstreamSettings) -> Any:
    """Make the rules of other settings for an upstream that runs."""
    return make_rules(settings, running.rules.telemetry, running.rules.policy, running)


async def test_new_rules_hold_for_the_next_request() -> None:
    """A lease that began before goes on; idle addresses are dropped; all end with the upstream."""
    first = billing(allowed_destinations={"networks": ["127.0.0.0/8"]})
    second = billing(allowed_destinations={"networks": ["127.0.0.1/32"]})
    running = compose(first)
    balancer = Balancer(running)
    try:
        await address_of_lease(balancer, "http://127.0.0.2:1")
        async with balancer.lease(destination="http://127.0.0.3:1"):
            running.use(rules_of(running, second))
            assert balancer.status().dynamic_destinations == 1  # the one that is held
            assert balancer.status().in_flight == 1
            with pytest.raises(ValueError, match="outside of the networks"):
                await address_of_lease(balancer, "http://127.0.0.3:1")
            running.use(rules_of(running, billing("http://a")))
            with pytest.raises(ValueError, match="allows no others"):
                balancer.lease(destination="http://127.0.0.1:1")
            running.use(rules_of(running, second))
    finally:
        await running.aclose()


async def test_lease_that_is_taken_after_new_rules_is_counted() -> None:
    """It began by the old rules, before it had a destination; none begins after a close."""
    settings = billing(allowed_destinations={"networks": ["127.0.0.0/8"]})
    running = compose(settings)
    balancer = Balancer(running)
    try:
        before, late = (balancer.lease(destination="http://127.0.0.3:1") for _ in range(2))
        running.use(rules_of(running, settings))
        async with before:
            assert balancer.status().in_flight == 1
            running.refuse()
            with pytest.raises(UpstreamClosed):
                await late.__aenter__()
    finally:
        await running.aclose()


async def test_pick_is_explained() -> None:
    """The one reason is the address; the pool had no part in it."""
    async with ScriptedOrigin() as origin, serving(given_app(explain="header")) as gateway:
        reply = await fetch(gateway.address, target="/billing/x", headers=to(origin.url))

    assert reply.one(b"x-proxy-explain") == f"address picked {origin.url} of 0".encode()


async def test_transforms_and_response_headers_of_the_upstream_hold() -> None:
    """Those of the settings, on the request and on the response."""
    app = given_app(
        transforms=[{"kind": "request_header", "name": "x-added", "set": "yes"}],
        response_headers={"X-Own": "own"},
    )
    async with ScriptedOrigin() as origin, serving(app) as gateway:
        reply = await fetch(gateway.address, target="/billing/x", headers=to(origin.url))

    assert origin.request.all(b"x-added") == [b"yes"]
    assert reply.one(b"x-own") == b"own"
