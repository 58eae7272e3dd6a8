"""Retry-After of a destination that asks for a pause."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

import pytest

from fastapi_proxy_di.forwarding.outcomes import retry_after_seconds
from fastapi_proxy_di.supervision.events import DestinationEjected, Event
from tests.support.gateways import gateway, until
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Connection, Script, ScriptedOrigin, always, response_bytes


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"7", 7), (b"0", 0), (b"-1", None), (b"soon", None), (b"", None), (b"1.5", None)],
)
def test_retry_after_is_read_as_seconds(value: bytes, seconds: float | None) -> None:
    """A whole number, or nothing."""
    assert retry_after_seconds([(b"x", b"1"), (b"retry-after", value)]) == seconds


def test_retry_after_is_read_as_a_date() -> None:
    """The seconds until then; 0 for the past."""
    soon = formatdate(time.time() + 60, usegmt=True).encode("ascii")
    past = b"Sun, 06 Nov 1994 08:49:37 GMT"

    assert retry_after_seconds([(b"retry-after", soon)]) == pytest.approx(60, abs=2)
    assert (retry_after_seconds([(b"retry-after", past)]) or 0) < 0


def test_retry_after_may_be_missing() -> None:
    """Most responses have none."""
    assert retry_after_seconds([(b"x", b"1")]) is None


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("status", "after", "respect", "served"),
    [
        (429, b"60", True, [429, 200, 200]),
        (503, b"60", True, [503, 200, 200]),
        (503, b"never", True, [503, 503, 503]),
        (429, b"60", False, [429, 429, 429]),
        (500, b"60", True, [500, 500, 500]),
    ],
)
async def test_retry_after_ejects_the_destination(
    status: int, after: bytes, respect: bool, served: list[int]
) -> None:
    """For its time, if the settings say so; the response itself reaches its client."""
    events: list[Event] = []
    async with (
        ScriptedOrigin(always(response_bytes(status, headers=[(b"Retry-After", after)]))) as busy,
        ScriptedOrigin() as other,
        gateway(
            busy.url, other.url, policy="first", ejection={"respect_retry_after": respect}
        ) as gate,
    ):
        gate.balancer.subscribe(events.append)
        statuses = [(await fetch(gate.address, target="/billing/x")).status for _ in range(3)]

    assert statuses == served
    ejected = [event for event in events if isinstance(event, DestinationEjected)]
    assert ejected == events
    assert [(one.destination, round(one.seconds, 3), one.reason) for one in ejected] == (
        [(busy.url, 60.0, "retry_after")] if 200 in served else []
    )


def refuses(status: int, body: bytes, after: bytes = b"30") -> Script:
    """Respond to each request with a status and ``Retry-After``."""
    return always(response_bytes(status, body, [(b"Retry-After", after)]))


@pytest.mark.e2e
async def test_destination_with_retry_after_is_not_tried_again_by_the_exchange() -> None:
    """Another one is; when none is left, the client gets the last response of its exchange."""
    retries = {"refused_statuses": "429", "attempts": 5, "backoff": 0}
    async with (
        ScriptedOrigin(refuses(429, b"one")) as one,
        ScriptedOrigin(refuses(429, b"two")) as two,
        gateway(one.url, two.url, policy="first", retries=retries) as gate,
    ):
        reply = await fetch(gate.address, "POST", "/billing/x", body=b"hello")

    assert (reply.status, reply.body, reply.one(b"retry-after")) == (429, b"two", b"30")
    assert [seen.body for seen in (*one.requests, *two.requests)] == [b"hello", b"hello"]


@pytest.mark.e2e
async def test_only_destination_with_retry_after_is_asked_once_per_exchange() -> None:
    """A listed 503 with Retry-After reaches the client at once; other exchanges ask again."""
    async with (
        ScriptedOrigin(refuses(503, b"later")) as origin,
        gateway(origin.url, retries={"statuses": "503", "attempts": 5}) as gate,
    ):
        replies = [await fetch(gate.address, target="/billing/x") for _ in range(2)]

    assert [(reply.status, reply.body) for reply in replies] == [(503, b"later")] * 2
    assert len(origin.requests) == 2


@pytest.mark.e2e
async def test_only_destination_without_retry_after_is_asked_again() -> None:
    """Also if its limit leaves room for this exchange alone; a zero asks for no time."""
    async with (
        ScriptedOrigin(refuses(429, b"no", b"0")) as origin,
        gateway(
            destinations=[{"url": origin.url, "max_in_flight": 1}],
            retries={"refused_statuses": "429", "attempts": 2, "backoff": "1ms"},
        ) as gate,
    ):
        reply = await fetch(gate.address, "POST", "/billing/x", body=b"hello")

    assert (reply.status, reply.body) == (429, b"no")
    assert [seen.body for seen in origin.requests] == [b"hello"] * 3


@pytest.mark.e2e
async def test_cooling_destinations_are_not_asked() -> None:
    """Also the only one: an exchange that was not sent gets 503 with the smallest time left."""
    async with (
        ScriptedOrigin(refuses(429, b"one", b"50")) as one,
        ScriptedOrigin(refuses(503, b"two", b"40")) as two,
        gateway(one.url, two.url, policy="first", ejection={"respect_retry_after": True}) as gate,
    ):
        replies = [await fetch(gate.address, target="/billing/x") for _ in range(3)]
        ended = await fetch(gate.address, target="/billing/x")

    assert [reply.status for reply in replies] == [429, 503, 503]
    assert replies[2].one(b"content-type") == b"application/problem+json"
    assert 35 <= int(replies[2].one(b"retry-after") or 0) <= 40
    assert ended.status == 503
    assert (len(one.requests), len(two.requests)) == (1, 1)


@pytest.mark.e2e
async def test_exchange_keeps_its_response_when_the_others_are_full() -> None:
    """The response of the refusing destination is given, not an error of our own."""
    release = asyncio.Event()

    async def holds(connection: Connection) -> None:
        await connection.read_request()
        await release.wait()
        await connection.send(response_bytes(body=b"held"))

    async with (
        ScriptedOrigin(holds) as busy,
        ScriptedOrigin(refuses(429, b"later")) as refusing,
        gateway(
            destinations=[{"url": busy.url, "max_in_flight": 1}, {"url": refusing.url}],
            policy="first",
            retries={"refused_statuses": "429"},
        ) as gate,
    ):
        held = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        await until(lambda: busy.requests)
        reply = await fetch(gate.address, target="/billing/x")
        release.set()
        await held

    assert (reply.status, reply.body) == (429, b"later")
    assert len(refusing.requests) == 1


@pytest.mark.e2e
async def test_client_that_leaves_in_the_pause_frees_the_place_of_the_next_attempt() -> None:
    """The place is taken before the pause, so that a response is only dropped for another one."""
    busy = always(response_bytes(503, b"no"))
    async with (
        ScriptedOrigin(busy) as one,
        ScriptedOrigin(busy) as two,
        gateway(
            one.url, two.url, policy="first", retries={"statuses": "503", "backoff": 1000}
        ) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("GET", "/billing/x"))
        await until(lambda: one.requests and gate.balancer.destinations[1].in_flight)
        client.close()
        await until(lambda: gate.in_flight == 0)
        attempts = [one.attempts for one in gate.balancer.status().destinations]

    assert two.requests == []
    assert attempts == [1, 0]  # an attempt begins after the pause
