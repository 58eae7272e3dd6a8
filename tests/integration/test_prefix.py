"""Policy ``prefix`` through a gateway: the body is read before the pick, and sent whole."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, Response

from fastapi_proxy_di import Balancer, ForwardOptions, Upstream
from tests.client.upstreams import pieces, running
from tests.support.gateways import gateway, until
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, always, response_bytes
from tests.support.servers import dead_port
from tests.support.taken import record_taken

pytestmark = pytest.mark.e2e

JSON = (b"Content-Type", b"application/json")


def prompt(system: str, *turns: str, size: int = 0) -> bytes:
    """Give the body of a request to a model."""
    messages = [{"role": "user", "content": turn} for turn in turns]
    return json.dumps({"system": system, "messages": messages, "user": "x" * size}).encode()


def _named(number: int) -> ScriptedOrigin:
    return ScriptedOrigin(always(response_bytes(body=b"%d" % number)))


async def test_prompts_that_begin_alike_reach_one_destination() -> None:
    """Mounted, forwarded after the endpoint has read them, chunked or called by a client."""
    app = FastAPI()

    @app.post("/own")
    async def own(
        request: Request, billing: Annotated[Balancer, Depends(Upstream("billing"))]
    ) -> Response:
        await request.body()
        return await billing.forward(request, "/x")

    systems = [f"{number} " + "You are helpful. " * 100 for number in range(24)]
    async with _named(0) as a, _named(1) as b, _named(2) as c, _named(3) as d:
        urls = [one.url for one in (a, b, c, d)]
        async with (
            gateway(*urls, app=app, policy="prefix") as gate,
            running(*urls, policy="prefix") as balancer,
        ):
            for system in systems:
                first = prompt(system, "hello")
                replies = [
                    await fetch(gate.address, "POST", "/billing/x", [JSON], first),
                    await fetch(gate.address, "POST", "/billing/y", [JSON], prompt(system, "b")),
                    await fetch(gate.address, "POST", "/own", [JSON], prompt(system, "c")),
                ]
                calls = [
                    await client.post(
                        "/x", content=content, headers={"content-type": "application/json"}
                    )
                    for client in (balancer.client, balancer.httpx2_client)
                    for content in (first, prompt(system, "d"))
                ]
                assert {reply.status for reply in replies} == {200}
                assert {reply.body for reply in replies} | {call.content for call in calls} == {
                    replies[0].body
                }
                assert gate.in_flight == 0
        used = [len(one.requests) for one in (a, b, c, d)]

    assert sum(used) == 24 * 7
    assert min(used) > 0


async def test_requests_without_a_body_are_spread() -> None:
    """GET, a chunked upload and one that streams from the app have no key."""
    chunked = (b"Transfer-Encoding", b"chunked")
    async with (
        _named(0) as a,
        _named(1) as b,
        gateway(a.url, b.url, policy="prefix") as gate,
        running(a.url, b.url, policy="prefix") as balancer,
    ):
        got: set[bytes] = set()
        async with asyncio.timeout(10):
            while len(got) < 2:
                got.add((await fetch(gate.address, target="/billing/x")).body)
        got.clear()
        async with asyncio.timeout(10):
            while len(got) < 2:
                async with connect(gate.address) as client:
                    head = request("POST", "/billing/x", [JSON, chunked])
                    await client.send(head + b"5\r\nhello\r\n0\r\n\r\n")
                    got.add((await client.read_response()).body)
        streamed = await balancer.client.post("/x", content=pieces(b"hel", b"lo"))
        uploads = [got.body for one in (a, b) for got in one.requests if got.chunked]

    assert streamed.status_code == 200
    assert set(uploads) == {b"hello"}


@pytest.mark.parametrize("headers", [[JSON], []])
async def test_body_read_in_pieces_is_sent_whole_and_again(
    headers: list[tuple[bytes, bytes]],
) -> None:
    """900 KiB of JSON: the destination that refused it and the next one both get all of it."""
    body = prompt("system " * 500, "hello", size=900 * 1024)
    refused = always(response_bytes(503, b"busy"))
    settings: dict[str, Any] = {
        "policy": "prefix",
        "retries": {"refused_statuses": "503", "replay_bytes": 0 if headers else 1 << 20},
    }
    async with (
        ScriptedOrigin(refused) as a,
        ScriptedOrigin(refused) as b,
        gateway(a.url, b.url, f"http://127.0.0.1:{dead_port()}", **settings) as gate,
        connect(gate.address) as client,
    ):
        whole = request("POST", "/billing/x", headers, body)
        for at in range(0, len(whole), 200_000):
            await client.send(whole[at : at + 200_000])
        reply = await client.read_response()
        bodies = [got.body for one in (a, b) for got in one.requests]

    assert (reply.status, reply.body) == (503, b"busy")
    assert len(bodies) == 2
    assert set(bodies) == {body}


async def test_larger_json_is_streamed() -> None:
    """Over ``streams.replay_bytes`` only its first bytes are read; they are the key."""
    body = prompt("system " * 500, "hello", size=300 * 1024)
    first_bytes = asyncio.Event()

    async def script(connection: Connection) -> None:
        received = await connection.read_head()
        first_bytes.set()
        await connection.read_body(received)
        await connection.send(response_bytes(body=b"ok"))

    settings: dict[str, Any] = {"policy": "prefix", "streams": {"replay_bytes": 100 * 1024}}
    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, **settings) as gate,
        connect(gate.address) as client,
    ):
        whole = request("POST", "/billing/x", [JSON], body)
        await client.send(whole[:2000])
        async with asyncio.timeout(10):
            await first_bytes.wait()
        await client.send(whole[2000:])
        reply = await client.read_response()

    assert (reply.status, origin.request.body) == (200, body)


async def test_client_that_waits_for_continue_is_asked_by_the_destination() -> None:
    """Its body is not read before the pick, so a refusal comes before it is sent."""

    async def script(connection: Connection) -> None:
        received = await connection.read_head()
        assert received.one(b"expect") == b"100-continue"
        await connection.send(response_bytes(417, b"no"))
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, policy="prefix", limits={"expect_continue": 30}) as gate,
        connect(gate.address) as client,
    ):
        expect = [JSON, (b"Expect", b"100-continue"), (b"Content-Length", b"5")]
        await client.send(request("POST", "/billing/x", expect))
        reply = await client.read_response()

    assert (reply.status, reply.informational) == (417, [])


async def test_client_that_leaves_before_its_body_is_whole_uses_no_destination() -> None:
    """Nothing stays in flight."""
    app = FastAPI()
    taken = record_taken(app)
    async with ScriptedOrigin() as origin, gateway(origin.url, app=app, policy="prefix") as gate:
        async with connect(gate.address) as client:
            body = prompt("system", "hello", size=5000)
            await client.send(request("POST", "/billing/x", [JSON], body)[:-10])
            await until(lambda: taken.waits)
            client.reset()
        await until(lambda: not taken.waits)
        after = await fetch(gate.address, target="/billing/x")
        in_flight = gate.in_flight

    assert (after.status, in_flight, len(origin.requests)) == (200, 0, 1)


@pytest.mark.parametrize(("timeouts", "status"), [({"activity": 0.1}, 408), ({"total": 0.1}, 504)])
async def test_body_that_does_not_come_in_time_uses_no_destination(
    timeouts: dict[str, float], status: int
) -> None:
    """The activity timeout between its pieces, and the total one."""
    body = prompt("system", "hello", size=5000)
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, policy="prefix", timeouts=timeouts) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("POST", "/billing/x", [JSON], body)[:-10])
        reply = await client.read_response()

    assert reply.status == status
    assert origin.connections == 0


async def test_total_timeout_counts_from_the_beginning_of_the_body() -> None:
    """The time in which it was read is part of it."""
    loop = asyncio.get_running_loop()
    body = prompt("system", "hello", size=5000)

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, policy="prefix", timeouts={"total": 1.0}) as gate,
        connect(gate.address) as client,
    ):
        whole = request("POST", "/billing/x", [JSON], body)
        began = loop.time()
        await client.send(whole[:-10])
        await asyncio.sleep(0.6)  # the time that is measured
        await client.send(whole[-10:])
        reply = await client.read_response()
        seconds = loop.time() - began

    assert (reply.status, len(origin.requests)) == (504, 1)
    assert 0.9 < seconds < 1.5


async def test_body_over_its_limit_is_refused_before_it_is_read() -> None:
    """By its Content-Length."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, policy="prefix", limits={"max_body_bytes": 100}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("POST", "/billing/x", [JSON, (b"Content-Length", b"101")]))
        reply = await client.read_response()

    assert (reply.status, origin.connections) == (413, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"prompt": ' + b"9" * 5000 + b"}",
        b'{"prompt": ' + b"[" * 800 + b"]" * 800 + b"}",
        b'{"prompt": ' + b"[" * 990 + b"]" * 990 + b"}",
        b"null",
    ],
)
async def test_body_that_is_no_json_counts_by_its_raw_bytes(body: bytes) -> None:
    """It is forwarded all the same."""
    async with (
        _named(0) as a,
        _named(1) as b,
        gateway(a.url, b.url, policy="prefix") as gate,
    ):
        replies = [await fetch(gate.address, "POST", "/billing/x", [JSON], body) for _ in range(8)]
        bodies = {got.body for one in (a, b) for got in one.requests}

    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert bodies == {body}


async def test_routes_may_give_the_key_themselves() -> None:
    """``affinity_key`` is used in place of the prompt."""
    async with (
        _named(0) as a,
        _named(1) as b,
        _named(2) as c,
        gateway(
            *(a.url, b.url, c.url),
            router={"options": lambda: ForwardOptions(affinity_key="acme")},
            policy="prefix",
        ) as gate,
    ):
        replies = [
            await fetch(gate.address, "POST", "/billing/x", [JSON], prompt(f"{number}"))
            for number in range(12)
        ]

    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
