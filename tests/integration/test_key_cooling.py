"""``ejection.key``: a key that a destination refuses cools there, and the destination does not."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from fastapi_proxy_di.supervision.events import DestinationEjected, Event
from tests.client.upstreams import running
from tests.integration.keys import BY_HEADER, ask, refuses
from tests.support.gateways import Gateway, gateway, until
from tests.support.http_client import RawResponse, connect, fetch
from tests.support.origins import Connection, ScriptedOrigin, response_bytes
from tests.support.servers import dead_port
from tests.support.websocket_client import shake_hands

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("status", [429, 401, 403])
async def test_refused_key_cools_where_it_was_refused(status: int) -> None:
    """Other keys, and requests without one, still go there; no failure is counted."""
    events: list[Event] = []
    settings = {**BY_HEADER, "respect_retry_after": True, "statuses": "429", "consecutive": 1}
    async with (
        ScriptedOrigin(refuses({b"key-a": b"30"}, b"one", status)) as one,
        ScriptedOrigin(refuses({}, b"two")) as two,
        gateway(one.url, two.url, policy="first", ejection=settings) as gate,
    ):
        gate.balancer.subscribe(events.append)
        replies = [await ask(gate, key) for key in (b"key-a", b"key-a", b"key-b", None, b"key-a")]
        failures = [destination.failures for destination in gate.balancer.destinations]

    assert [reply.status for reply in replies] == [status, 200, 200, 200, 200]
    assert [reply.body for reply in replies] == [b"no one", b"two", b"one", b"one", b"two"]
    assert (events, failures) == ([], [0, 0])


async def test_key_that_cools_everywhere_gets_503_with_the_smallest_time() -> None:
    """Without an attempt; other keys are served."""
    async with (
        ScriptedOrigin(refuses({b"key-a": b"60"}, b"one")) as one,
        ScriptedOrigin(refuses({b"key-a": b"30"}, b"two")) as two,
        gateway(one.url, two.url, policy="first", ejection=BY_HEADER) as gate,
    ):
        replies = [await ask(gate, b"key-a") for _ in range(4)]
        other = await ask(gate, b"key-b")
        seen = len(one.requests) + len(two.requests)

    assert [reply.status for reply in replies] == [429, 429, 503, 503]
    assert [reply.one(b"retry-after") for reply in replies] == [b"60", b"30", b"30", b"30"]
    assert (other.status, seen) == (200, 3)


async def test_refused_request_is_retried_where_its_key_does_not_cool() -> None:
    """With ``retries.refused_statuses``; at the end the client gets the last response."""
    retries = {"refused_statuses": "429", "attempts": 5, "backoff": 0}
    async with (
        ScriptedOrigin(refuses({b"key-a": None, b"key-c": None}, b"one")) as one,
        ScriptedOrigin(refuses({b"key-c": None}, b"two")) as two,
        gateway(one.url, two.url, policy="first", retries=retries, ejection=BY_HEADER) as gate,
    ):
        served = [await ask(gate, b"key-a", "POST") for _ in range(2)]
        refused = [await ask(gate, b"key-c", "POST") for _ in range(2)]
        seen = [len(one.requests), len(two.requests)]

    assert [reply.body for reply in served] == [b"two", b"two"]
    assert [(reply.status, reply.body[:6]) for reply in refused] == [
        (429, b"no two"),
        (503, refused[1].body[:6]),
    ]
    assert refused[1].one(b"retry-after") in (b"30", b"29")  # ``base_time``
    assert seen == [2, 3]


async def test_refusal_that_nothing_can_follow_costs_no_retry() -> None:
    """The budget stays for requests that can be sent elsewhere."""
    retries = {
        "refused_statuses": "429",
        "backoff": 0,
        "budget_share": 0,
        "budget_minimum": 1,
    }
    async with (
        ScriptedOrigin(refuses({b"key": None}, b"one")) as one,
        ScriptedOrigin(refuses({b"key-a": None}, b"two")) as two,
        gateway(one.url, two.url, policy="first", retries=retries, ejection=BY_HEADER) as gate,
    ):
        await gate.balancer.drain(one.url)
        await ask(gate, b"key-a")
        gate.balancer.undrain(one.url)
        last = await ask(gate, b"key-a")
        retried = await ask(gate, b"key-b")
        again = await ask(gate, b"key-c")

    assert last.body == b"no one"
    assert retried.body == b"two"
    assert again.body == b"no one"  # the one retry was that of key-b


async def test_refused_request_is_not_sent_to_the_same_destination_again() -> None:
    """Also if the others are full; the client gets the refusal."""
    release = asyncio.Event()

    async def slow(connection: Connection) -> None:
        await connection.read_request()
        await release.wait()
        await connection.send(response_bytes(body=b"two"))

    retries = {"refused_statuses": "429", "attempts": 5, "backoff": 0}
    async with (
        ScriptedOrigin(refuses({b"key-a": None}, b"one")) as one,
        ScriptedOrigin(slow) as two,
        gateway(
            destinations=[{"url": one.url, "tier": 1}, {"url": two.url, "max_in_flight": 1}],
            retries=retries,
            ejection=BY_HEADER,
        ) as gate,
    ):
        held = asyncio.create_task(ask(gate, b"key-b"))
        await until(lambda: two.requests)
        refused = await ask(gate, b"key-a", "POST")
        release.set()
        served = await held

    assert (refused.status, refused.body) == (429, b"no one")
    assert (served.body, len(one.requests)) == (b"two", 1)


@pytest.mark.parametrize(
    ("key", "target", "body"),
    [
        ("query:key", "/billing/x?a=1&key={}", b""),
        ("body:model", "/billing/x", b'{"model": "{}", "stream": true}'),
        ("body:model", "/billing/x", b'{"stream": {"model": "x"}, "model": "{}"}'),
    ],
)
async def test_key_is_in_the_query_or_in_the_body(key: str, target: str, body: bytes) -> None:
    """The body goes up whole."""
    json_type = [(b"Content-Type", b"application/json")]

    async def send(gate: Gateway, name: str) -> RawResponse:
        content = body.replace(b"{}", name.encode())
        return await fetch(gate.address, "POST", target.replace("{}", name), json_type, content)

    async with (
        ScriptedOrigin(refuses({b"key-a": b"30"}, b"one")) as one,
        ScriptedOrigin(refuses({}, b"two")) as two,
        gateway(one.url, two.url, policy="first", ejection={"key": key}) as gate,
    ):
        replies = [await send(gate, name) for name in ("key-a", "key-a", "key-b")]
        bodies = [got.body for got in (*one.requests, *two.requests)]

    assert [reply.body for reply in replies] == [b"no one", b"two", b"one"]
    assert set(bodies) == {body.replace(b"{}", name) for name in (b"key-a", b"key-b")}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (b"text/plain", b'{"model": "key-a"}'),
        (b"application/json", b'["key-a"]'),
        (b"application/json", b'{"model": ' + b"[" * 900 + b'"key-a"' + b"]" * 900 + b"}"),
        (b"application/json", b'{"messages": [{"model": "key-a"}]}'),
        (b"application/json", b'{"model": null, "key-a": 1}'),
        (b"application/json", b'{"model": "key-a"' + b" " * 2000 + b"}"),
    ],
)
async def test_other_bodies_have_no_key(content_type: bytes, body: bytes) -> None:
    """Nothing cools, and the destination neither."""
    async with (
        ScriptedOrigin(refuses({b"key-a": b"30"}, b"one")) as one,
        ScriptedOrigin(refuses({}, b"two")) as two,
        gateway(
            one.url,
            two.url,
            policy="first",
            ejection={"key": "body:model"},
            streams={"replay_bytes": 2000},
        ) as gate,
    ):
        replies = [
            await fetch(gate.address, "POST", "/billing/x", [(b"Content-Type", content_type)], body)
            for _ in range(3)
        ]

    assert [reply.body for reply in replies] == [b"no one"] * 3


async def test_key_is_read_from_the_request_as_it_goes_up() -> None:
    """A header of the settings replaces the client's, so there is one key."""
    async with (
        ScriptedOrigin(refuses({b"key-a": b"30"}, b"one")) as one,
        ScriptedOrigin(refuses({}, b"two")) as two,
        gateway(
            one.url,
            two.url,
            policy="first",
            ejection=BY_HEADER,
            request_headers={"authorization": "key-a"},
        ) as gate,
    ):
        replies = [await ask(gate, key) for key in (b"key-b", b"key-c")]

    assert [reply.body for reply in replies] == [b"no one", b"two"]


@pytest.mark.parametrize(
    ("after", "settings"),
    [(None, {"base_time": 0.2}), (b"3600", {"base_time": 0.1, "max_time": 0.2})],
)
async def test_key_is_used_again_after_its_time(
    after: bytes | None, settings: dict[str, float]
) -> None:
    """``base_time`` without a Retry-After; at most ``max_time``."""
    async with (
        ScriptedOrigin(refuses({b"key-a": after}, b"one")) as one,
        ScriptedOrigin(refuses({}, b"two")) as two,
        gateway(one.url, two.url, policy="first", ejection=BY_HEADER | settings) as gate,
    ):
        first = [await ask(gate, b"key-a") for _ in range(2)]
        async with asyncio.timeout(10):
            while (await ask(gate, b"key-a")).body != b"no one":
                pass

    assert [reply.body for reply in first] == [b"no one", b"two"]


async def test_retry_after_of_zero_cools_nothing() -> None:
    """The destination asks for no pause."""
    async with (
        ScriptedOrigin(refuses({b"key-a": b"0"}, b"one")) as one,
        ScriptedOrigin(refuses({}, b"two")) as two,
        gateway(one.url, two.url, policy="first", ejection=BY_HEADER) as gate,
    ):
        replies = [await ask(gate, b"key-a") for _ in range(2)]

    assert [reply.body for reply in replies] == [b"no one"] * 2


async def test_transport_failures_are_the_destinations() -> None:
    """They eject it for all keys."""
    events: list[Event] = []
    dead = f"http://127.0.0.1:{dead_port()}"
    async with (
        ScriptedOrigin(refuses({}, b"two")) as two,
        gateway(dead, two.url, policy="first", ejection=BY_HEADER | {"consecutive": 1}) as gate,
    ):
        gate.balancer.subscribe(events.append)
        replies = [await ask(gate, key) for key in (b"key-a", b"key-b")]

    assert [reply.body for reply in replies] == [b"two", b"two"]
    assert [event.destination for event in events if isinstance(event, DestinationEjected)] == [
        dead
    ]


@pytest.mark.parametrize("library", ["client", "httpx2_client"])
async def test_keys_of_the_apps_own_calls_cool(library: str) -> None:
    """SDKs with several keys share the clients of an upstream."""
    async with (
        ScriptedOrigin(refuses({b"key-a": b"30"}, b"one")) as one,
        ScriptedOrigin(refuses({}, b"two")) as two,
        running(one.url, two.url, policy="first", ejection=BY_HEADER) as by_header,
        running(one.url, two.url, policy="first", ejection={"key": "body:model"}) as by_body,
    ):
        got = [
            (await getattr(by_header, library).get("/x", headers={"Authorization": key})).text
            for key in ("key-a", "key-a", "key-b")
        ]
        got += [
            (await getattr(by_body, library).post("/x", json={"model": model})).text
            for model in ("key-a", "key-a", "key-b")
        ]

    assert got == ["no one", "two", "one"] * 2


async def test_key_that_a_handshake_sends_cools() -> None:
    """A refused handshake is a response like others."""
    async with (
        ScriptedOrigin(refuses({b"key-a": b"30"}, b"one", 401)) as one,
        ScriptedOrigin(refuses({b"key-a": b"30"}, b"two", 403)) as two,
        gateway(one.url, two.url, policy="first", ejection=BY_HEADER) as gate,
    ):
        statuses = []
        for _ in range(3):
            async with connect(gate.address) as client:
                headers = [(b"Authorization", b"key-a")]
                statuses.append((await shake_hands(client, "/billing/x", headers)).status)

    assert statuses == [401, 403, 503]


async def test_value_of_a_key_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """Neither in logs at DEBUG, nor in headers, the status or the problem."""
    with caplog.at_level(logging.DEBUG):
        async with (
            ScriptedOrigin(refuses({b"secret-a": b"30"})) as one,
            ScriptedOrigin(refuses({b"secret-a": b"30"})) as two,
            gateway(one.url, two.url, policy="first", ejection=BY_HEADER, explain="header") as gate,
        ):
            replies = [await ask(gate, b"secret-a") for _ in range(3)]
            status = repr(gate.balancer.status())
            kept = repr(gate.balancer._running.cooled_pairs.__dict__)

    shown = [repr(reply) for reply in replies] + [status, kept, caplog.text]
    shown += [repr(vars(record)) for record in caplog.records]
    assert [reply.status for reply in replies] == [429, 429, 503]
    assert not any("secret-a" in text for text in shown)
    assert f"{one.url} (refused the key)" in str(replies[1].one(b"x-proxy-explain"))
    assert json.loads(replies[2].body)["status"] == 503
