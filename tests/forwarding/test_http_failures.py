"""Each fault of a destination: its status, its `Failure`, its side, and its count."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_proxy_di.errors import Failure, Side
from tests.support.gateways import Gateway, gateway, until
from tests.support.http_client import Ending, connect, fetch, request
from tests.support.origins import Connection, Script, ScriptedOrigin, chunk, response_bytes
from tests.support.servers import blackhole, dead_port
from tests.support.stepped_loop import SteppedLoop
from tests.support.taken import record_taken

pytestmark = pytest.mark.e2e


Place = Callable[[], AbstractAsyncContextManager[str]]
_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"hello")
_LENGTH = _OK + b"Content-Length: 10\r\n\r\nhello"


def _at(url: str) -> Place:
    @contextlib.asynccontextmanager
    async def place() -> AsyncIterator[str]:
        yield url

    return place


@contextlib.asynccontextmanager
async def _refusing() -> AsyncIterator[str]:
    yield f"http://127.0.0.1:{dead_port()}"


@contextlib.asynccontextmanager
async def _silent_network() -> AsyncIterator[str]:
    with blackhole() as port:
        yield f"http://127.0.0.1:{port}"


def _scripted(script: Script, scheme: str = "http") -> Place:
    @contextlib.asynccontextmanager
    async def place() -> AsyncIterator[str]:
        async with ScriptedOrigin(script) as origin:
            yield f"{scheme}://{origin.authority}"

    return place


async def _then(connection: Connection, data: bytes, end: Callable[[Connection], Any]) -> None:
    """Send the data, then end the connection as ``end`` does."""
    await connection.send(data)
    waiting = end(connection)
    if waiting is not None:
        await waiting


def _sends(data: bytes, then: Callable[[Connection], Any] = Connection.peer_left) -> Place:
    """Make an origin that sends these bytes, then closes, resets or stays silent."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await _then(connection, data, then)

    return _scripted(script)


async def _speaks_no_tls(connection: Connection) -> None:
    await connection.reader.read(1 << 16)
    await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await connection.peer_left()


_CONNECT_SOON = {"timeouts": {"connect": 0.1}}
_BEFORE: dict[str, tuple[Place, dict[str, Any], Failure, int]] = {
    "refused": (_refusing, {}, Failure.CONNECT, 502),
    # TCP to the broadcast address is ENETUNREACH, whatever the machine's routes are.
    "unreachable": (_at("http://255.255.255.255"), {}, Failure.CONNECT, 502),
    "no such name": (_at("http://no-such-host.invalid"), {}, Failure.RESOLVE, 502),
    "no TLS": (_scripted(_speaks_no_tls, "https"), {}, Failure.TLS, 502),
    "connect timeout": (_silent_network, _CONNECT_SOON, Failure.CONNECT_TIMEOUT, 504),
    "no first byte": (
        _sends(b""),
        {"timeouts": {"first_byte": 0.1}},
        Failure.FIRST_BYTE_TIMEOUT,
        504,
    ),
    "stalled in the head": (
        _sends(_OK),
        {"timeouts": {"activity": 0.1}},
        Failure.ACTIVITY_TIMEOUT,
        504,
    ),
    "closed": (_sends(b"", Connection.close), {}, Failure.RESPONSE_HEAD, 502),
    "reset": (_sends(b"", Connection.reset), {}, Failure.RESPONSE_HEAD, 502),
    "reset in the head": (_sends(_OK, Connection.reset), {}, Failure.RESPONSE_HEAD, 502),
    "bad status line": (
        _sends(b"HTTP/1.1 OK 200\r\n\r\n"),
        {},
        Failure.RESPONSE_MALFORMED,
        502,
    ),
    "head over the limit": (
        _sends(response_bytes(headers=[(b"X-A", b"y" * 70_000)])),
        {},
        Failure.RESPONSE_MALFORMED,
        502,
    ),
    "conflicting lengths": (
        _sends(response_bytes(body=b"ok", headers=[(b"Content-Length", b"3")])),
        {},
        Failure.RESPONSE_MALFORMED,
        502,
    ),
    "length and chunks": (
        _sends(_OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        {},
        Failure.RESPONSE_MALFORMED,
        502,
    ),
}
_AMID: dict[str, tuple[bytes, bytes, Callable[[Connection], Any], Failure]] = {
    "stalled": (_CHUNKED, b"", Connection.peer_left, Failure.ACTIVITY_TIMEOUT),
    "reset": (_LENGTH, b"", Connection.reset, Failure.RESPONSE_BODY),
    "closed": (_LENGTH, b"", Connection.close, Failure.RESPONSE_BODY),
    "cut in a chunk": (_CHUNKED, b"ff\r\nnot so long", Connection.close, Failure.RESPONSE_BODY),
    "bad chunk": (_CHUNKED, b"zz\r\n", Connection.peer_left, Failure.RESPONSE_BODY),
    "no last chunk": (_CHUNKED, b"", Connection.close, Failure.RESPONSE_BODY),
}


@pytest.fixture
def access(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Turn the access log on."""
    caplog.set_level(logging.INFO, logger="fastapi_proxy_di.access")
    return caplog


def _record(caplog: pytest.LogCaptureFixture) -> tuple[str, str]:
    """Give failure and side of the only record."""
    (record,) = [one for one in caplog.records if one.name == "fastapi_proxy_di.access"]
    seen: Any = record
    return seen.failure, seen.ended_by


def _counted(gate: Gateway) -> tuple[int, int]:
    """Give the failures counted for the destination, and its exchanges in flight."""
    (destination,) = gate.balancer.destinations
    return destination.failures, destination.in_flight


@pytest.mark.parametrize("middlewares", [0, 1, 2])
@pytest.mark.parametrize("name", _BEFORE)
async def test_fault_before_the_first_byte_gives_its_status(
    name: str, middlewares: int, access: pytest.LogCaptureFixture
) -> None:
    """The problem document names the failure and no address; the failure counts once."""
    place, settings, failure, status = _BEFORE[name]
    async with (
        place() as url,
        gateway(url, middlewares=middlewares, retries={"attempts": 0}, **settings) as gate,
    ):
        reply = await fetch(gate.address, target="/billing/x")
        await until(lambda: gate.in_flight == 0, 10)
        counted = _counted(gate)

    assert (reply.status, reply.ending) == (status, Ending.LENGTH)
    assert reply.one(b"content-type") == b"application/problem+json"
    assert url.partition("://")[2].encode() not in reply.body
    assert failure.side is Side.DESTINATION
    assert _record(access) == (failure.value, "destination")
    assert counted == (1, 0)


@pytest.mark.parametrize("middlewares", [0, 1, 2])
@pytest.mark.parametrize("name", _AMID)
async def test_fault_within_the_body_breaks_the_transfer(
    name: str, middlewares: int, access: pytest.LogCaptureFixture, deadline_clock: SteppedLoop
) -> None:
    """The failure counts once, on the destination's side."""
    first, rest, fault, failure = _AMID[name]
    head_seen = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(first)
        await head_seen.wait()
        if failure is Failure.ACTIVITY_TIMEOUT:
            deadline_clock.advance(3600)
        await _then(connection, rest, fault)

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, middlewares=middlewares) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request(target="/billing/x"))
        reply = await client.read_head()
        head_seen.set()
        await client.read_body(reply)
        await until(lambda: gate.in_flight == 0, 10)
        counted = _counted(gate)

    assert (reply.status, reply.ending) == (200, Ending.BROKEN)
    assert failure.side is Side.DESTINATION
    assert _record(access) == (failure.value, "destination")
    assert counted == (1, 0)


@pytest.mark.parametrize("middlewares", [0, 1, 2])
async def test_post_on_a_closing_connection_is_not_repeated(
    middlewares: int, access: pytest.LogCaptureFixture
) -> None:
    """RFC 9110 section 9.2.2 forbids to repeat a POST: 502, sent once."""

    async def script(connection: Connection) -> None:
        while (await connection.read_request()).method == b"GET":
            await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, middlewares=middlewares) as gate,
    ):
        await fetch(gate.address, target="/billing/x")
        access.clear()
        reply = await fetch(gate.address, "POST", "/billing/x", body=b"x")
        counted = _counted(gate)

    assert (reply.status, reply.ending) == (502, Ending.LENGTH)
    assert _record(access) == (Failure.RESPONSE_HEAD.value, "destination")
    assert counted == (1, 0)
    assert len(origin.requests) == 2


@pytest.mark.parametrize("middlewares", [0, 1, 2])
@pytest.mark.parametrize("behind", [b"x", response_bytes(body=b"evil")], ids=["byte", "response"])
async def test_bytes_after_the_body_are_no_failure(
    behind: bytes, middlewares: int, access: pytest.LogCaptureFixture
) -> None:
    """The response was complete; the connection is not used again."""
    async with (
        _sends(response_bytes(body=b"good") + behind)() as url,
        gateway(url, middlewares=middlewares) as gate,
    ):
        replies = [await fetch(gate.address, target="/billing/x") for _ in range(2)]
        counted = _counted(gate)

    assert [(reply.body, reply.ending) for reply in replies] == [(b"good", Ending.LENGTH)] * 2
    assert [one.failure for one in access.records if one.name.endswith(".access")] == [None] * 2  # type: ignore[attr-defined]
    assert counted == (0, 0)


@pytest.mark.parametrize("middlewares", [0, 1, 2])
async def test_stalled_upload_is_the_clients_failure(
    middlewares: int, access: pytest.LogCaptureFixture, deadline_clock: SteppedLoop
) -> None:
    """408, and no failure of the destination is counted."""
    app = FastAPI()
    taken = record_taken(app)
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, app=app, middlewares=middlewares) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("POST", "/billing/x", [(b"Content-Length", b"9")]) + b"half")
        await until(lambda: origin.requests and taken.waits)
        deadline_clock.advance(3600)
        reply = await client.read_response()
        await until(lambda: gate.in_flight == 0, 10)
        counted = _counted(gate)

    assert (reply.status, reply.ending) == (408, Ending.LENGTH)
    assert _record(access) == (Failure.REQUEST_BODY_TIMEOUT.value, "client")
    assert counted == (0, 0)
