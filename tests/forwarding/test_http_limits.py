"""Limits of bodies and of requests in flight: what exceeds them is refused."""

import asyncio

import pytest
from fastapi import FastAPI

from tests.support.gateways import gateway, until
from tests.support.http_client import Ending, connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, chunk, response_bytes
from tests.support.taken import record_taken

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("middlewares", [0, 1])
async def test_body_over_the_limit_is_refused_by_its_length(middlewares: int) -> None:
    """The request is not sent to a destination."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, middlewares=middlewares, limits={"max_body_bytes": 10}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("POST", "/billing/x", [(b"Content-Length", b"11")]))
        reply = await client.read_response()

    assert reply.status == 413
    assert reply.ending is not Ending.BROKEN
    assert origin.connections == 0


@pytest.mark.parametrize("middlewares", [0, 1])
async def test_body_over_the_limit_is_refused_while_it_is_read(middlewares: int) -> None:
    """Without a length the bytes are counted; the destination never sees a complete body."""

    async def script(connection: Connection) -> None:
        await connection.read_request()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, middlewares=middlewares, limits={"max_body_bytes": 10}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(
            request("POST", "/billing/x", [(b"Transfer-Encoding", b"chunked")]) + chunk(b"hello")
        )
        await until(lambda: origin.requests)
        await client.send(chunk(b"hello") + chunk(b"!"))
        reply = await client.read_response()
        await origin.all_left()
        await until(lambda: gate.in_flight == 0)

    assert reply.status == 413
    assert not origin.request.complete


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_at_the_limit_is_forwarded(chunked: bool) -> None:
    """The limit itself is allowed."""
    body = b"0123456789"
    framing = (b"Transfer-Encoding", b"chunked") if chunked else (b"Content-Length", b"10")
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, limits={"max_body_bytes": 10}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(
            request("POST", "/billing/x", [framing])
            + (chunk(body) + chunk(b"") if chunked else body)
        )
        reply = await client.read_response()

    assert reply.status == 200
    assert origin.request.body == body


async def _until_released(connection: Connection, release: asyncio.Event) -> None:
    while True:
        await connection.read_request()
        await release.wait()
        await connection.send(response_bytes(body=b"ok"))


async def test_full_upstream_gives_503() -> None:
    """Over ``max_in_flight`` without a queue: 503 at once, with Retry-After."""
    release = asyncio.Event()
    async with (
        ScriptedOrigin(lambda connection: _until_released(connection, release)) as origin,
        gateway(origin.url, limits={"max_in_flight": 1}) as gate,
    ):
        first = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        await until(lambda: origin.requests)
        refused = await fetch(gate.address, target="/billing/x")
        release.set()
        served = await first
        after = await fetch(gate.address, target="/billing/x")

    assert refused.status == 503
    assert int(refused.one(b"retry-after") or 0) >= 1
    assert (served.status, after.status) == (200, 200)
    assert len(origin.requests) == 2


async def test_queue_waits_for_a_place() -> None:
    """With a queue the second request waits for the end of the first."""
    release = asyncio.Event()
    async with (
        ScriptedOrigin(lambda connection: _until_released(connection, release)) as origin,
        gateway(origin.url, limits={"max_in_flight": 1, "queue": 1, "queue_timeout": 10}) as gate,
    ):
        first = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        await until(lambda: origin.requests)
        second = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        third = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        done, _ = await asyncio.wait({second, third}, return_when=asyncio.FIRST_COMPLETED)
        release.set()
        statuses = sorted([(await first).status, (await second).status, (await third).status])

    assert len(done) == 1
    assert statuses == [200, 200, 503]
    assert len(origin.requests) == 2


async def test_upload_survives_its_wait_in_the_queue() -> None:
    """Bytes that the client sends meanwhile are not lost."""
    body = bytes(range(256)) * 2000
    release = asyncio.Event()
    app = FastAPI()
    taken = record_taken(app)
    async with (
        ScriptedOrigin(lambda connection: _until_released(connection, release)) as origin,
        gateway(
            origin.url, app=app, limits={"max_in_flight": 1, "queue": 1, "queue_timeout": 60}
        ) as gate,
        connect(gate.address) as client,
    ):
        first = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        await until(lambda: origin.requests)
        await client.send(
            request("POST", "/billing/x", [(b"Transfer-Encoding", b"chunked")]) + chunk(body)
        )
        await until(lambda: any(message.get("body") for message in taken.messages))
        release.set()
        await client.send(chunk(body) + chunk(b""))
        reply = await client.read_response()
        await first

    assert reply.status == 200
    assert origin.requests[1].body == body * 2


async def test_disconnect_in_the_queue_sends_nothing() -> None:
    """The place in the queue is free at once."""
    release = asyncio.Event()
    async with (
        ScriptedOrigin(lambda connection: _until_released(connection, release)) as origin,
        gateway(origin.url, limits={"max_in_flight": 1, "queue": 1, "queue_timeout": 10}) as gate,
    ):
        first = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        await until(lambda: origin.requests)
        async with connect(gate.address) as client:
            await client.send(request(target="/billing/left"))
            await until(lambda: gate.balancer.status().queued == 1)
            refused = await fetch(gate.address, target="/billing/refused")
            client.close()
        await until(lambda: gate.balancer.status().queued == 0)
        second = asyncio.create_task(fetch(gate.address, target="/billing/second"))
        await until(lambda: gate.balancer.status().queued == 1)
        release.set()
        statuses = [(await first).status, (await second).status]

    assert refused.status == 503
    assert statuses == [200, 200]
    assert [seen.target for seen in origin.requests] == [b"/x", b"/second"]


async def test_queue_timeout_gives_503() -> None:
    """``queue_timeout`` ends the wait."""
    release = asyncio.Event()
    async with (
        ScriptedOrigin(lambda connection: _until_released(connection, release)) as origin,
        gateway(origin.url, limits={"max_in_flight": 1, "queue": 5, "queue_timeout": 0.05}) as gate,
    ):
        first = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        await until(lambda: origin.requests)
        refused = await fetch(gate.address, target="/billing/x")
        release.set()
        await first

    assert refused.status == 503
    assert len(origin.requests) == 1


async def test_full_destination_is_skipped() -> None:
    """The next request goes to another destination."""
    release = asyncio.Event()
    async with (
        ScriptedOrigin(lambda connection: _until_released(connection, release)) as small,
        ScriptedOrigin() as large,
        gateway(
            policy="first", destinations=[{"url": small.url, "max_in_flight": 1}, large.url]
        ) as gate,
    ):
        first = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        await until(lambda: small.requests)
        second = await fetch(gate.address, target="/billing/x")
        release.set()
        await first

    assert second.status == 200
    assert (len(small.requests), len(large.requests)) == (1, 1)


async def test_refused_requests_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The first by the event, the next two as one line at the end."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, limits={"max_in_flight": 1, "queue": 0}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request(target="/billing/x"))
        await until(lambda: origin.requests)
        statuses = [(await fetch(gate.address, target="/billing/x")).status for _ in range(3)]

    lines = [one.getMessage() for one in caplog.records if one.name == "fastapi_proxy_di.limits"]
    assert statuses == [503] * 3
    assert lines[0] == "billing is at its limit (limits.max_in_flight)"
    assert [one.rpartition(" in ")[0] for one in lines[1:]] == [
        "billing: 2 × refused by limits.max_in_flight"
    ]
