"""Retries: only requests that may be sent twice are sent twice."""

import asyncio
from typing import Any

import pytest

from tests.support.gateways import gateway, until
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Connection, Headers, ScriptedOrigin, always, chunk, response_bytes
from tests.support.servers import dead_port

pytestmark = pytest.mark.e2e


async def _read_and_close(connection: Connection) -> None:
    await connection.read_request()


async def _respond_once_then_close_on_the_next(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(response_bytes(body=b"ok"))
    await connection.read_request()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
async def test_listed_method_is_tried_elsewhere(method: str) -> None:
    """A safe request without a response is sent to another destination."""
    async with (
        ScriptedOrigin(_read_and_close) as bad,
        ScriptedOrigin() as good,
        gateway(bad.url, good.url, policy="first") as gate,
    ):
        reply = await fetch(gate.address, method, "/billing/x")

    assert reply.status == 200
    assert (len(bad.requests), len(good.requests)) == (1, 1)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_unlisted_method_is_not_tried_elsewhere(method: str) -> None:
    """The first request may have had its effect."""
    async with (
        ScriptedOrigin(_read_and_close) as bad,
        ScriptedOrigin() as good,
        gateway(bad.url, good.url, policy="first") as gate,
    ):
        reply = await fetch(gate.address, method, "/billing/x", body=b"hello")

    assert reply.status == 502
    assert (len(bad.requests), len(good.requests)) == (1, 0)


async def test_idempotency_key_allows_a_post_elsewhere() -> None:
    """The client promises that a repetition is harmless; the whole body is sent again."""
    key: Headers = [(b"Idempotency-Key", b"42")]
    async with (
        ScriptedOrigin(_read_and_close) as bad,
        ScriptedOrigin() as good,
        gateway(bad.url, good.url, policy="first") as gate,
    ):
        reply = await fetch(gate.address, "POST", "/billing/x", key, b"hello")

    assert reply.status == 200
    assert (bad.request.body, good.request.body) == (b"hello", b"hello")


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 502)])
async def test_body_is_sent_again_while_it_is_replayable(size: int, status: int) -> None:
    """A body over ``replay_bytes`` is not kept, so it cannot be sent again."""
    key: Headers = [(b"Idempotency-Key", b"42")]
    async with (
        ScriptedOrigin(_read_and_close) as bad,
        ScriptedOrigin() as good,
        gateway(bad.url, good.url, policy="first", retries={"replay_bytes": 1000}) as gate,
    ):
        reply = await fetch(gate.address, "POST", "/billing/x", key, bytes(size))

    assert reply.status == status


@pytest.mark.parametrize(("attempts", "tried"), [(0, 1), (1, 2), (2, 3)])
async def test_attempts_limits_the_retries(attempts: int, tried: int) -> None:
    """``retries.attempts`` counts the further attempts."""
    async with (
        ScriptedOrigin(_read_and_close) as a,
        ScriptedOrigin(_read_and_close) as b,
        ScriptedOrigin(_read_and_close) as c,
        ScriptedOrigin(_read_and_close) as d,
        gateway(a.url, b.url, c.url, d.url, retries={"attempts": attempts}) as gate,
    ):
        reply = await fetch(gate.address, target="/billing/x")

    assert reply.status == 502
    assert [len(origin.requests) for origin in (a, b, c, d)].count(1) == tried


@pytest.mark.parametrize("settings", [{}, {"retries": {"attempts": 0}}])
async def test_get_on_a_connection_that_just_closed_is_resent(settings: dict[str, Any]) -> None:
    """The retry is not counted."""
    async with (
        ScriptedOrigin(_respond_once_then_close_on_the_next) as origin,
        gateway(origin.url, **settings) as gate,
    ):
        statuses = [(await fetch(gate.address, target="/billing/x")).status for _ in range(3)]

    assert statuses == [200, 200, 200]
    assert origin.connections == 3
    assert len(origin.requests) == 5


async def test_post_on_a_connection_that_just_closed_is_not_resent() -> None:
    """Bytes were written, so it may have been done (RFC 9110 section 9.2.2)."""
    async with (
        ScriptedOrigin(_respond_once_then_close_on_the_next) as origin,
        gateway(origin.url) as gate,
    ):
        first = await fetch(gate.address, "POST", "/billing/x", body=b"a")
        second = await fetch(gate.address, "POST", "/billing/x", body=b"b")

    assert (first.status, second.status) == (200, 502)
    assert [seen.body for seen in origin.requests] == [b"a", b"b"]


async def test_listed_status_is_tried_elsewhere() -> None:
    """The response is dropped for that of another destination."""
    async with (
        ScriptedOrigin(always(response_bytes(503, b"busy"))) as bad,
        ScriptedOrigin() as good,
        gateway(bad.url, good.url, policy="first", retries={"statuses": [503]}) as gate,
    ):
        get = await fetch(gate.address, "GET", "/billing/x")
        post = await fetch(gate.address, "POST", "/billing/x", body=b"hello")

    assert (get.status, get.body) == (200, b"ok")
    assert (post.status, post.body) == (503, b"busy")


async def test_last_listed_status_is_the_response() -> None:
    """When no attempt is left, the client gets the destination's own response."""
    busy = always(response_bytes(503, b"busy"))
    async with (
        ScriptedOrigin(busy) as one,
        ScriptedOrigin(busy) as two,
        gateway(one.url, two.url, retries={"statuses": [503]}) as gate,
    ):
        reply = await fetch(gate.address, target="/billing/x")

    assert (reply.status, reply.body) == (503, b"busy")
    assert len(one.requests) + len(two.requests) == 2


async def test_refused_connections_cost_no_attempts() -> None:
    """Up to three further destinations, also with no attempts and for a POST."""
    dead = [f"http://127.0.0.1:{dead_port()}" for _ in range(3)]
    async with (
        ScriptedOrigin() as origin,
        gateway(*dead, origin.url, policy="first", retries={"attempts": 0}) as gate,
    ):
        reply = await fetch(gate.address, "POST", "/billing/x", body=b"hello")

    assert reply.status == 200
    assert origin.request.body == b"hello"


async def test_streamed_upload_survives_a_refused_connection() -> None:
    """The body is read only once there is a connection."""
    async with (
        ScriptedOrigin() as origin,
        gateway(f"http://127.0.0.1:{dead_port()}", origin.url, policy="first") as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("POST", "/billing/x", [(b"Transfer-Encoding", b"chunked")]))
        await client.send(chunk(b"hel"))
        await until(lambda: origin.requests)
        await client.send(chunk(b"lo") + chunk(b""))
        reply = await client.read_response()

    assert reply.status == 200
    assert origin.request.body == b"hello"


async def test_budget_limits_the_retries() -> None:
    """Over the budget nothing is retried."""
    async with (
        ScriptedOrigin(_read_and_close) as one,
        ScriptedOrigin(_read_and_close) as two,
        gateway(
            one.url,
            two.url,
            ejection={"enabled": False},
            retries={"budget_share": 0.0, "budget_minimum": 5, "backoff": 0},
        ) as gate,
    ):
        replies = await asyncio.gather(
            *(fetch(gate.address, target="/billing/x") for _ in range(20))
        )

    assert {reply.status for reply in replies} == {502}
    assert len(one.requests) + len(two.requests) == 25


async def test_nothing_is_tried_again_after_the_first_byte() -> None:
    """A response that broke off is not retried."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")

    async with (
        ScriptedOrigin(script) as bad,
        ScriptedOrigin() as good,
        gateway(bad.url, good.url, policy="first") as gate,
    ):
        reply = await fetch(gate.address, target="/billing/x")

    assert not reply.whole
    assert good.requests == []
