"""Taps: code of the app reads responses while they pass, and changes nothing of them."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any, Final

import pytest
from fastapi import Depends, FastAPI, Request, Response
from starlette.testclient import TestClient

from fastapi_proxy_di import (
    Balancer,
    ForwardOptions,
    SseEvent,
    TapExchange,
    Upstream,
    UpstreamSettings,
    proxy_router,
)
from fastapi_proxy_di.testing import StandIn, reply
from tests.forwarding.tapped import SEEN, TWO, Logs, plain, tapped, through
from tests.support.engines import engine, stream_head
from tests.support.gateways import gateway, until
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Connection, Script, ScriptedOrigin, always, chunk

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_tap_sees_each_event_and_the_end(size: int) -> None:
    """However the bytes are split, and the client gets them as they came."""
    logs = Logs()
    whole = b": comment\n\n" + b"".join(TWO) + b"data: not ended"
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    reply = await through(engine(*pieces), logs)

    assert reply.body == whole
    assert len(logs.all) == 1
    assert (logs.last.events, logs.last.answers, logs.last.ends) == (SEEN, [], ["complete"])


async def test_event_is_seen_when_its_last_byte_has_come() -> None:
    """Before the client gets it, and while the stream goes on."""
    logs = Logs()
    async with tapped(engine(TWO[0], then="stall"), logs) as gate, connect(gate.address) as client:
        await client.send(request(target="/billing/x"))
        await client.read_head()
        assert await client.read_chunk() == TWO[0]
        assert (logs.last.events, logs.last.ends) == (SEEN[:1], [])


async def test_tap_knows_its_exchange() -> None:
    """The upstream, the destination, the client's request and the head of the response."""
    logs = Logs()
    script = plain(b"{}", b"application/json", b"X-Model: m")
    async with ScriptedOrigin(script) as origin:
        async with gateway(origin.url, router={"tap": logs}) as gate:
            await fetch(gate.address, "POST", "/billing/x?y=1", body=b"abc")
        exchange = logs.last.exchange
        assert (exchange.upstream, exchange.destination) == ("billing", origin.url)
    assert (exchange.status, exchange.headers.get("X-Model")) == (200, "m")
    sent = exchange.request
    assert (sent.method, sent.path, sent.query) == ("POST", "/x", "y=1")


CODINGS: Final[dict[bytes, Callable[[bytes], bytes]]] = {
    b"gzip": gzip.compress,
    b"deflate": zlib.compress,
}


@pytest.mark.parametrize("coding", CODINGS)
async def test_encoded_stream_is_read_and_passes_as_it_is(coding: bytes) -> None:
    """The tap reads a decoded copy."""
    logs = Logs()
    whole = CODINGS[coding](b"".join(TWO))
    script = engine(whole[:9], whole[9:], headers=[(b"Content-Encoding", coding)])
    reply = await through(script, logs)

    assert reply.body == whole
    assert (logs.last.events, logs.last.ends) == (SEEN, ["complete"])


@pytest.mark.parametrize("coding", [b"", b"gzip"])
async def test_plain_json_is_an_answer(coding: bytes) -> None:
    """As a JSON value, once, also if it is encoded or an error."""
    logs = Logs()
    body = json.dumps({"usage": {"total": 3}}).encode()
    body = gzip.compress(body) if coding else body
    script = plain(body, b"application/problem+json; charset=utf-8", b"Content-Encoding: " + coding)
    reply = await through(script, logs)

    assert reply.body == body
    assert (logs.last.events, logs.last.answers) == ([], [{"usage": {"total": 3}}])
    assert logs.last.ends == ["complete"]


LARGE: Final = json.dumps("x" * (1 << 20)).encode()
UNREAD: Final[dict[str, tuple[Script, dict[str, int]]]] = {
    "unknown coding": (
        engine(*TWO, headers=[(b"Content-Encoding", b"x-own")]),
        {"coding": 1},
    ),
    "broken coding": (engine(*TWO, headers=[(b"Content-Encoding", b"gzip")]), {"coding": 1}),
    "large JSON": (plain(LARGE), {"size": 1}),
    "no JSON": (plain(b"<html>"), {"json": 1}),
    "deep JSON": (plain(b"[" * 200_000), {"json": 1}),
    "too much decoded": (
        engine(
            gzip.compress(b"data: " + bytes(5 << 20)),
            headers=[(b"Content-Encoding", b"gzip")],
        ),
        {"size": 1},
    ),
    "other types": (plain(b"data: a\n\n", b"text/plain"), {}),
    "no body": (plain(b""), {}),
}


@pytest.mark.parametrize("case", UNREAD)
async def test_response_that_cannot_be_read_passes_and_is_counted(case: str) -> None:
    """By a reason of ours; the tap still gets the end."""
    script, counted = UNREAD[case]
    logs = Logs()
    async with tapped(script, logs) as gate:
        reply = await fetch(gate.address, "GET", "/billing/x")
        await until(lambda: gate.in_flight == 0)
        metrics = gate.balancer._running.metrics

    assert reply.status == 200
    assert metrics.unread_taps == counted
    assert (logs.last.answers, logs.last.ends) == ([], ["complete"])


async def test_event_over_a_mebibyte_is_skipped_to_its_end() -> None:
    """The next one is seen."""
    logs = Logs()
    large = b"data: " + b"x" * (1 << 20) + b"\n\n"
    reply = await through(engine(large, *TWO), logs)

    assert reply.body == large + b"".join(TWO)
    assert logs.last.events == SEEN


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_end_is_told_once_when_the_stream_breaks(then: Any) -> None:
    """After the events before, and the client's transfer breaks."""
    logs = Logs()
    async with tapped(engine(TWO[0], then=then), logs) as gate, connect(gate.address) as client:
        await client.send(request(target="/billing/x"))
        await client.read_head()
        assert await client.read_chunk() == TWO[0]
        with pytest.raises(EOFError):
            await client.read_chunk()
        await until(lambda: gate.in_flight == 0)

    assert (logs.last.events, logs.last.ends) == (SEEN[:1], ["destination"])


async def test_end_is_told_once_when_the_client_leaves() -> None:
    """While the stream is silent."""
    logs = Logs()
    async with tapped(engine(TWO[0], then="stall"), logs) as gate:
        async with connect(gate.address) as client:
            await client.send(request(target="/billing/x"))
            await client.read_head()
            await client.read_chunk()
        await until(lambda: gate.in_flight == 0)

    assert (logs.last.events, logs.last.ends) == (SEEN[:1], ["client"])


async def test_plain_function_gets_events_and_their_exchange() -> None:
    """One of two arguments, for those that need no state."""
    seen: list[tuple[SseEvent, str]] = []

    def tap(event: SseEvent, exchange: TapExchange) -> None:
        seen.append((event, exchange.upstream))

    await through(engine(*TWO), tap)
    await through(plain(b"{}"), tap)

    assert seen == [(event, "billing") for event in SEEN]


async def test_factory_may_give_no_tap() -> None:
    """Then nothing is read."""
    reply = await through(engine(*TWO), lambda exchange: None)

    assert reply.body == b"".join(TWO)


async def test_tap_works_with_hold_and_heartbeats() -> None:
    """Events that were held are seen, and heartbeats are none."""
    logs = Logs()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(stream_head() + chunk(TWO[0]))
        await until(beaten.is_set)
        await connection.send(chunk(TWO[1]) + chunk(b""))
        await connection.read_request()

    beaten = asyncio.Event()
    streams = {"first_event": 5, "heartbeat": 0.02}
    async with tapped(script, logs, streams=streams) as gate, connect(gate.address) as client:
        await client.send(request(target="/billing/x"))
        await client.read_head()
        assert await client.read_chunk() == TWO[0]
        assert await client.read_chunk() == b": ping\n\n"
        beaten.set()
        while await client.read_chunk():
            pass
        await until(lambda: gate.in_flight == 0)

    assert (logs.last.events, logs.last.ends) == (SEEN, ["complete"])


class Archive(UpstreamSettings, name="archive"):
    """Settings of the second upstream."""


async def test_forward_takes_a_tap() -> None:
    """For one request, and not for one whose response is not sent."""
    logs = Logs()
    app = FastAPI()

    @app.get("/own")
    async def own(
        incoming: Request, drop: bool = False, billing: Balancer = Depends(Upstream("billing"))
    ) -> Response:
        response = await billing.forward(incoming, "/x", tap=logs)
        if drop:
            await response.aclose()
            return Response("none")
        return response

    async with ScriptedOrigin(engine(*TWO)) as origin, gateway(origin.url, app=app) as gate:
        assert (await fetch(gate.address, "GET", "/own?drop=1")).body == b"none"
        assert logs.all == []
        await fetch(gate.address, "GET", "/own")
        assert logs.last.events == SEEN
        await fetch(gate.address, "GET", "/billing/x")
        await until(lambda: gate.in_flight == 0)

    assert len(logs.all) == 1


async def test_tap_of_a_mount_holds_with_options_of_a_request() -> None:
    """Both the tap and the options apply."""
    logs = Logs()
    options = {"options": lambda: ForwardOptions(headers={"x-one": "1"})}
    async with ScriptedOrigin(engine(*TWO)) as origin:
        async with gateway(origin.url, router={"tap": logs, **options}) as gate:
            await fetch(gate.address, "GET", "/billing/x")
            await until(lambda: gate.in_flight == 0)
        assert dict(origin.request.headers)[b"x-one"] == b"1"

    assert logs.last.events == SEEN


async def test_tap_sees_the_response_of_the_fallback_alone() -> None:
    """The response that is dropped for it has no tap."""
    logs = Logs()
    broken = always(
        b"HTTP/1.1 503 X\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    async with ScriptedOrigin(broken) as bad, ScriptedOrigin(engine(*TWO)) as good:
        router = {"tap": logs, "fallback": Archive(destinations=[good.url])}
        async with gateway(bad.url, router=router, retries={"attempts": 1}) as gate:
            reply = await fetch(gate.address, "GET", "/billing/x")
            await until(lambda: gate.in_flight == 0)

    assert reply.body == b"".join(TWO)
    assert [(one.exchange.upstream, one.events, one.ends) for one in logs.all] == [
        ("archive", SEEN, ["complete"])
    ]


def test_stand_ins_have_taps() -> None:
    """A stand-in by its balancer, a test's own object by the argument of ``forward``."""
    logs = Logs()
    app = FastAPI()
    app.include_router(proxy_router("billing", tap=logs), prefix="/billing")
    given: list[Any] = []

    class Double:
        async def forward(self, request: Request, path: str, *, tap: Any = None) -> Response:
            given.append(tap)
            return Response("double")

    with StandIn("billing", reply({"n": 1})).replace(app), TestClient(app) as client:
        assert client.get("/billing/x").json() == {"n": 1}
    assert (logs.last.answers, logs.last.ends) == ([{"n": 1}], ["complete"])

    app.dependency_overrides[Upstream("billing")] = Double
    assert TestClient(app).get("/billing/x").text == "double"
    assert given == [logs]
