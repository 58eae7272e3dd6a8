"""Streams that are held until their first event, and tried elsewhere if they fail before."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import zlib
from functools import partial
from typing import Any

import pytest

from fastapi_proxy_di.forwarding.first_event import HELD_BYTES, HELD_EVENTS
from fastapi_proxy_di.wire.event_stream import SseEvent
from tests.forwarding.asgi_server import asgi_gateway
from tests.support.engines import engine, stream_head, through
from tests.support.gateways import gateway, until
from tests.support.http_client import Ending, connect, fetch, request
from tests.support.origins import Connection, Script, ScriptedOrigin, chunk, response_bytes

pytestmark = pytest.mark.e2e

EVENT = b"data: hello\n\n"
SOON = {"first_event": 0.1}
LATER = {"first_event": 30}
GOOD = engine(EVENT)

FAILS: dict[str, tuple[Script, int]] = {
    "silence": (engine(then="stall"), 504),
    "comments only": (engine(b": ping\n\n", b": ping\n\n", then="stall"), 504),
    "pings only": (engine(b"event: ping\ndata: {}\n\n", b"data: ping\n\n", then="stall"), 504),
    "half an event": (engine(b"data: hel", then="stall"), 504),
    "a reset": (engine(then="reset"), 502),
    "a reset after a comment": (engine(b": ping\n\n", then="reset"), 502),
    "a close": (engine(then="close"), 502),
}


@pytest.mark.parametrize(("script", "status"), FAILS.values(), ids=FAILS)
async def test_stream_that_fails_before_its_first_event_is_tried_elsewhere(
    script: Script, status: int
) -> None:
    """The client gets the stream of the other destination, and nothing of the first."""
    reply, origins = await through(script, GOOD)

    assert (reply.status, reply.body, reply.ending) == (200, EVENT, Ending.LAST_CHUNK)
    assert [len(origin.requests) for origin in origins] == [1, 1]


@pytest.mark.parametrize(("script", "status"), FAILS.values(), ids=FAILS)
@pytest.mark.parametrize("case", ["POST", "no attempts", "no budget"])
async def test_stream_that_may_not_be_tried_elsewhere_is_a_fault(
    script: Script, status: int, case: str
) -> None:
    """504 after silence, 502 after a broken connection."""
    cases: dict[str, dict[str, Any]] = {
        "POST": {"method": "POST", "body": b"{}"},
        "no attempts": {"retries": {"attempts": 0}},
        "no budget": {"retries": {"budget_share": 0, "budget_minimum": 0}},
    }
    reply, origins = await through(script, GOOD, **cases[case])

    assert reply.status == status
    assert json.loads(reply.body)["failure"] == (
        "first_event_timeout" if status == 504 else "first_event"
    )
    assert [len(origin.requests) for origin in origins] == [1, 0]


ERRORS = {
    "event": b'event: error\ndata: {"message": "no"}\n\n',
    "object": b'data: {"error": {"message": "overloaded"}}\n\n',
}


@pytest.mark.parametrize("event", ERRORS.values(), ids=ERRORS)
async def test_event_that_means_failure_is_tried_elsewhere(event: bytes) -> None:
    """Whether the stream then ends or not."""
    reply, origins = await through(engine(event, then="stall"), GOOD, streams=LATER)

    assert (reply.status, reply.body) == (200, EVENT)
    assert [len(origin.requests) for origin in origins] == [1, 1]


@pytest.mark.parametrize("event", ERRORS.values(), ids=ERRORS)
async def test_event_that_means_failure_passes_if_nothing_else_is_left(event: bytes) -> None:
    """The client gets the response as it is, of the last destination."""
    reply, origins = await through(engine(event), engine(b": 2\n\n", event), streams=LATER)
    alone, _ = await through(engine(event), method="POST", body=b"{}", streams=LATER)

    assert (reply.status, reply.body) == (200, b": 2\n\n" + event)
    assert [len(origin.requests) for origin in origins] == [1, 1]
    assert (alone.status, alone.body) == (200, event)


async def test_abandoned_exchange_is_closed_before_the_next_starts() -> None:
    """The first destination sees the end of its connection, and then the next gets the request."""
    seen: list[str] = []

    async def first(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(stream_head())
        await connection.peer_left()
        seen.append("left")

    async def second(connection: Connection) -> None:
        await connection.read_request()
        seen.append("request")
        await connection.send(stream_head() + chunk(EVENT) + chunk(b""))
        await connection.read_request()

    reply, _ = await through(first, second)

    assert reply.body == EVENT
    assert sorted(seen) == ["left", "request"]


PASSES: dict[str, tuple[Script, bytes]] = {
    "empty": (engine(), b""),
    "comments only": (engine(b": a\n\n", b": b\n\n"), b": a\n\n: b\n\n"),
    "no event": (engine(b"data: hel"), b"data: hel"),
    "events in pieces": (
        engine(b": a\n\nda", b"ta: a\r", b"\n\r\n", b"data: b"),
        b": a\n\ndata: a\r\n\r\ndata: b",
    ),
}


@pytest.mark.parametrize(("script", "body"), PASSES.values(), ids=PASSES)
async def test_stream_passes_byte_by_byte(script: Script, body: bytes) -> None:
    """With what was held, also if it ends before any event."""
    reply, origins = await through(script, GOOD, streams=LATER)

    assert (reply.status, reply.body, reply.ending) == (200, body, Ending.LAST_CHUNK)
    assert [len(origin.requests) for origin in origins] == [1, 0]


async def test_nothing_is_sent_while_the_stream_is_held() -> None:
    """Not the head either; then the head and all that was held come at once."""
    flow = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(stream_head() + chunk(b": ping\n\n"))
        await flow.wait()
        await connection.send(chunk(EVENT))
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, streams=LATER) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request(target="/billing/x"))
        head = asyncio.create_task(client.read_head())
        done, _ = await asyncio.wait([head], timeout=0.1)
        assert not done
        flow.set()
        assert (await head).status == 200
        assert await client.read_chunk() == b": ping\n\n" + EVENT


async def test_early_hints_are_sent_with_the_head() -> None:
    """None while the stream is held."""
    hint = b"HTTP/1.1 103 X\r\nLink: </a.css>\r\n\r\n"
    flow = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(hint + stream_head())
        await flow.wait()
        await connection.send(chunk(EVENT) + chunk(b""))

    async with (
        ScriptedOrigin(script) as origin,
        asgi_gateway(origin.url, extensions=["http.response.early_hint"], streams=LATER) as server,
    ):
        getting = asyncio.create_task(server.get())
        done, _ = await asyncio.wait([getting], timeout=0.1)
        assert origin.requests
        assert not done
        assert server.types == []
        flow.set()
        await getting

    assert server.types[:2] == ["early_hint", "start"]


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_client_that_leaves_while_its_stream_is_held_ends_it_upstream(leave: str) -> None:
    """At once, and no failure is counted."""
    async with (
        ScriptedOrigin(engine(then="stall")) as origin,
        gateway(origin.url, streams=LATER) as gate,
    ):
        async with connect(gate.address) as client:
            await client.send(request(target="/billing/x"))
            await until(lambda: origin.requests)
            getattr(client, leave)()
            await origin.all_left()
        await until(lambda: gate.in_flight == 0)
        assert gate.balancer.available == gate.balancer.destinations
    assert len(origin.requests) == 1


@pytest.mark.parametrize(
    "script",
    [
        engine(*[b"data: ping\n\n"] * HELD_EVENTS, then="stall"),
        engine(b": " + bytes(HELD_BYTES), then="stall"),
    ],
)
async def test_stream_is_held_up_to_a_bound(script: Script) -> None:
    """64 events or 64 KiB that do not count are passed on."""
    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, streams=LATER) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request(target="/billing/x"))

        assert (await client.read_head()).status == 200


UNHELD: dict[str, bytes] = {
    "another type": response_bytes(body=b"ok", headers=[(b"Content-Type", b"text/plain")]),
    "no type": response_bytes(body=b"ok"),
    "another status": stream_head(status=201),
    "an unknown coding": stream_head((b"Content-Encoding", b"x")),
}


@pytest.mark.parametrize("head", UNHELD.values(), ids=UNHELD)
async def test_other_responses_are_not_held(head: bytes) -> None:
    """Their heads are passed on at once."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(head)
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, streams=LATER) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request(target="/billing/x"))
        assert (await client.read_head()).status in {200, 201}


async def test_put_is_not_held() -> None:
    """Only responses to GET and POST are."""
    async with (
        ScriptedOrigin(engine(then="stall")) as origin,
        gateway(origin.url, streams=LATER) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("PUT", "/billing/x", body=b"a"))
        assert (await client.read_head()).status == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_encoded_stream_is_judged_by_its_copy(coding: str) -> None:
    """Its bytes are passed on encoded; one that reports an error is tried elsewhere."""
    encode = partial(gzip.compress, mtime=0) if coding == "gzip" else zlib.compress
    headers = [(b"Content-Encoding", coding.encode())]
    bad = engine(encode(ERRORS["event"]), headers=headers, then="stall")
    good = engine(encode(EVENT), headers=headers)
    reply, origins = await through(bad, good, streams=LATER)

    assert reply.body == encode(EVENT)
    assert [len(origin.requests) for origin in origins] == [1, 1]


async def test_piece_that_decodes_to_too_much_passes() -> None:
    """Only its first MiB is read."""
    script = engine(
        gzip.compress(b": comment\n" * 200_000),
        headers=[(b"Content-Encoding", b"gzip")],
        then="stall",
    )
    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, streams=LATER) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request(target="/billing/x"))
        assert (await client.read_head()).status == 200


async def test_stream_with_broken_coding_passes() -> None:
    """What cannot be read is not held."""
    script = engine(b"no gzip", headers=[(b"Content-Encoding", b"gzip")])
    reply, _ = await through(script, streams=LATER)

    assert (reply.status, reply.body) == (200, b"no gzip")


async def test_stream_that_breaks_after_its_first_event_is_broken_for_the_client() -> None:
    """It is never ended cleanly, and not tried elsewhere."""
    reply, origins = await through(engine(EVENT, then="close"), GOOD, streams=LATER)

    assert (reply.status, reply.body) == (200, EVENT)
    assert not reply.whole
    assert [len(origin.requests) for origin in origins] == [1, 0]


async def test_silent_destination_is_ejected() -> None:
    """Silence counts as a failure of the destination."""
    async with (
        ScriptedOrigin(engine(then="stall")) as bad,
        ScriptedOrigin(GOOD) as good,
        gateway(
            bad.url, good.url, policy="first", streams=SOON, ejection={"consecutive": 1}
        ) as gate,
    ):
        replies = [await fetch(gate.address, "GET", "/billing/x") for _ in range(2)]

    assert [reply.body for reply in replies] == [EVENT, EVENT]
    assert (len(bad.requests), len(good.requests)) == (1, 2)


def waits_for_x(event: SseEvent) -> bool | None:
    """Count events of type x, and take y for failure."""
    if event.event == "raise":
        raise LookupError("secret of the event")
    return {"x": True, "y": False}.get(event.event)


@pytest.mark.parametrize("rule", [waits_for_x, f"{__name__}:waits_for_x"])
async def test_rule_of_ones_own_decides(rule: object) -> None:
    """A function, or its name."""
    streams = {**LATER, "first_event_when": rule}
    bad = engine(EVENT, b"event: y\ndata: a\n\n", then="stall")
    reply, origins = await through(bad, engine(EVENT, b"event: x\ndata: b\n\n"), streams=streams)

    assert reply.body == EVENT + b"event: x\ndata: b\n\n"
    assert [len(origin.requests) for origin in origins] == [1, 1]


async def test_rule_that_raises_lets_the_stream_pass(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once."""
    caplog.set_level(logging.WARNING)
    streams = {**LATER, "first_event_when": waits_for_x}
    event = b"event: raise\ndata: a\n\n"
    async with (
        ScriptedOrigin(engine(event)) as origin,
        gateway(origin.url, streams=streams) as gate,
    ):
        replies = [await fetch(gate.address, "GET", "/billing/x") for _ in range(2)]

    assert [reply.body for reply in replies] == [event, event]
    (record,) = caplog.records
    assert record.name == "fastapi_proxy_di.streams"
    assert "first_event_when raised" in record.getMessage()
