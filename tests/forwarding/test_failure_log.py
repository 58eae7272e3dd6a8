"""Failed requests in the log: the reason at once, the number of repeats, no line for each.

Long because each kind of failure has lines of its own.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from typing import Any

import pytest

from fastapi_proxy_di import Balancer
from fastapi_proxy_di.errors import (
    Attempt,
    ClientDisconnected,
    Failure,
    InvalidRequest,
    LimitExceeded,
    NoAvailableDestination,
    ProxyError,
    UpstreamConnectError,
    UpstreamDisconnected,
)
from fastapi_proxy_di.forwarding.failure_log import MAX_DESTINATIONS, FailureLog
from fastapi_proxy_di.forwarding.tunnel import WebSocketEnd
from tests.support.gateways import billing, gateway
from tests.support.http_client import connect, fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.servers import dead_port
from tests.support.virtual_time import run_virtually
from tests.support.websocket_client import shake_hands

_LOGGER = "fastapi_proxy_di.forwarding"


def refused(port: int = 1) -> ProxyError:
    """A refused connection, as the retry loop raises it."""
    error = UpstreamConnectError("cannot connect")
    error.__cause__ = ConnectionRefusedError()
    error.destination = f"http://127.0.0.1:{port}"
    error.attempts = (Attempt(error.destination, Failure.CONNECT),)
    return error


def test_failures_of_a_kind_are_one_line_in_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """The first at once; then their number, as long as there are further ones."""

    async def scenario() -> None:
        log = FailureLog("billing")
        for seconds, failures in ((0, 3), (9, 2), (3, 4), (10, 0), (20, 1)):
            await asyncio.sleep(seconds)
            for _ in range(failures):
                log.failed(refused())
        log.close()

    run_virtually(scenario())

    first = "billing: a request failed: cannot connect (connect at http://127.0.0.1:1, 1 attempt)"
    assert caplog.messages == [
        first,
        "billing: 4 × connect refused by http://127.0.0.1:1 in 10 s",
        "billing: 4 × connect refused by http://127.0.0.1:1 in 10 s",
        first,
    ]


def test_number_is_logged_in_no_context_of_a_request(caplog: pytest.LogCaptureFixture) -> None:
    """The line belongs to no trace: many requests have failed."""
    trace: ContextVar[str] = ContextVar("trace", default="none")
    seen: list[str] = []

    class Seeing(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            seen.append(trace.get())
            return True

    async def scenario() -> None:
        log = FailureLog("billing")
        _ = trace.set("first")
        for _ in range(2):
            log.failed(refused())
        await asyncio.sleep(11)
        log.failed(refused())
        await asyncio.sleep(11)
        log.close()

    caplog.handler.addFilter(Seeing())
    run_virtually(scenario())

    assert seen == ["first", "none", "none"]


def test_each_kind_has_ten_seconds_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """A kind that is seen first while another is counted is not counted for less time."""

    async def scenario() -> None:
        log = FailureLog("billing")
        log.failed(refused())
        await asyncio.sleep(9)
        log.failed(NoAvailableDestination("no destination of billing is available"))
        log.failed(NoAvailableDestination("no destination of billing is available"))
        await asyncio.sleep(9.9)
        seen.append(len(caplog.messages))
        await asyncio.sleep(0.2)
        log.close()

    seen: list[int] = []
    run_virtually(scenario())

    assert seen == [2]
    assert caplog.messages[2:] == ["billing: 1 × no destination available in 10 s"]


def test_failures_at_the_end_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """``close`` logs the number so far, in the seconds so far; no timer is started after it."""

    async def scenario() -> None:
        log = FailureLog("billing")
        log.failed(refused())
        log.failed(refused())
        await asyncio.sleep(3)
        log.close()
        log.failed(UpstreamDisconnected("the upstream is shut down"))
        await asyncio.sleep(30)

    run_virtually(scenario())

    assert caplog.messages[1:] == [
        "billing: 1 × connect refused by http://127.0.0.1:1 in 3 s",
        "billing: a request failed: the upstream is shut down (response_head, 0 attempts)",
    ]


def test_failures_after_the_end_are_one_line_of_each_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A thousand streams that a shutdown breaks off do not fill the log."""

    async def scenario() -> None:
        log = FailureLog("billing")
        log.close()
        for _ in range(3):
            log.failed(refused())
            log.broke_off("http://127.0.0.1:1", UpstreamDisconnected("the upstream is shut down"))
        seen.extend(caplog.messages)
        log.close()

    seen: list[str] = []
    run_virtually(scenario())

    first = "a request failed: cannot connect (connect at http://127.0.0.1:1, 1 attempt)"
    broken = "the response of http://127.0.0.1:1 broke off: the upstream is shut down"
    assert seen == [f"billing: {first}", f"billing: {broken} (response_head, 1 attempt)"]


def test_failure_that_is_only_counted_is_not_formatted(caplog: pytest.LogCaptureFixture) -> None:
    """Whichever way it failed: an outage at full load costs no texts that nobody reads."""
    formatted: list[str] = []

    class Costly(UpstreamConnectError):
        def __str__(self) -> str:
            formatted.append("once")
            return "costly"

    async def scenario() -> None:
        log = FailureLog("billing")
        for _ in range(5):
            log.failed(Costly())
            log.broke_off("http://127.0.0.1:1", Costly())
            log.tunnel_ended("http://127.0.0.1:1", Costly(), "upstream_vanished", 1006)
        log.close()

    run_virtually(scenario())

    assert len(caplog.messages) == 6
    assert formatted == ["once"] * 3


def counted(*ports: int) -> None:
    """Let requests fail at these destinations, and log their number."""

    async def scenario() -> None:
        log = FailureLog("billing")
        for port in ports:
            log.failed(refused(port))
        log.close()

    run_virtually(scenario())


def test_line_names_the_destinations_with_most_failures(caplog: pytest.LogCaptureFixture) -> None:
    """Three of them with their numbers, and how many failures are left."""
    counted(1, 1, 1, 1, 2, 2, 3, 3, 4, 5)

    assert caplog.messages[1:] == [
        (
            "billing: 9 × connect refused by http://127.0.0.1:1 (3), http://127.0.0.1:2 (2), "
            "http://127.0.0.1:3 (2), others (2) in 1 s"
        )
    ]
    assert vars(caplog.records[-1])["destination"] is None
    assert vars(caplog.records[-1])["count"] == 9


def test_line_of_two_destinations_has_no_others(caplog: pytest.LogCaptureFixture) -> None:
    """Their numbers are all there is."""
    counted(1, 1, 2)

    assert caplog.messages[1:] == [
        "billing: 2 × connect refused by http://127.0.0.1:1 (1), http://127.0.0.1:2 (1) in 1 s"
    ]


def test_counted_destinations_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Above 64, failures of further destinations count without their names."""
    counted(0, *range(MAX_DESTINATIONS + 5))

    (line,) = caplog.messages[1:]
    assert line.startswith(f"billing: {MAX_DESTINATIONS + 5} × connect refused by ")
    assert line.endswith(f"(1), others ({MAX_DESTINATIONS + 2}) in 1 s")


def test_kinds_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """All failures and ends of tunnels together make fewer than 64 kinds."""

    async def scenario() -> None:
        log = FailureLog("billing")
        for failure in Failure:
            error = ProxyError("failed", failure=failure)
            log.failed(error)
            log.broke_off("http://a", error)
            for end in WebSocketEnd:
                log.tunnel_ended("http://a", error, end.value, 1006)
        log.close()

    run_virtually(scenario())

    assert len([one for one in caplog.messages if "×" not in one]) < 64


def test_connection_that_is_not_refused_is_said_to_have_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No route to a host is another kind than a port without a server."""

    async def scenario() -> None:
        log = FailureLog("billing")
        for _ in range(2):
            log.failed(refused())
            log.failed(UpstreamConnectError("no route", destination="http://10.0.0.1"))
        log.close()

    run_virtually(scenario())

    assert caplog.messages[2:] == [
        "billing: 1 × connect refused by http://127.0.0.1:1 in 1 s",
        "billing: 1 × connect failed to http://10.0.0.1 in 1 s",
    ]


def test_streams_that_break_off_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """With the attempts before the one that responded."""

    async def scenario() -> None:
        log = FailureLog("billing")
        error = UpstreamDisconnected("the destination left", failure=Failure.RESPONSE_BODY)
        for _ in range(200):
            log.broke_off("http://b", error, (Attempt("http://a", Failure.CONNECT),))
        await asyncio.sleep(11)
        log.close()

    run_virtually(scenario())

    assert caplog.messages == [
        (
            "billing: the response of http://b broke off: the destination left "
            "(response_body, 2 attempts)"
        ),
        "billing: 199 × response broken off (response_body) by http://b in 10 s",
    ]
    assert attributes(caplog.records[0]) == (
        "billing",
        "http://b",
        "response_body",
        (Attempt("http://a", Failure.CONNECT), Attempt("http://b", Failure.RESPONSE_BODY)),
    )


def test_tunnels_that_the_upstream_ends_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """To the logger of WebSockets, with reason and code."""

    async def scenario() -> None:
        log = FailureLog("live")
        for _ in range(200):
            error = UpstreamDisconnected("the WebSocket broke off")
            log.tunnel_ended("http://a", error, "upstream_vanished", 1006)
        await asyncio.sleep(11)
        log.close()

    run_virtually(scenario())

    assert caplog.messages == [
        "live: the tunnel to http://a ended: the WebSocket broke off (upstream_vanished, 1006)",
        "live: 199 × tunnel ended (upstream_vanished) by http://a in 10 s",
    ]
    assert {one.name for one in caplog.records} == {"fastapi_proxy_di.websocket"}
    assert vars(caplog.records[0])["code"] == 1006


def refusal(limit: str | None = None, *, announced: bool = False) -> LimitExceeded:
    """A request that a limit refused; by default those of all destinations."""
    error = LimitExceeded("a limit of billing is reached")
    if limit is not None:
        error.limit = limit
    error.announced = announced
    return error


def test_refusals_by_a_limit_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """All but those whose event has a record, to the logger and with the level of the event."""

    async def scenario() -> None:
        log = FailureLog("orders")
        log.failed(refusal("limits.max_in_flight", announced=True))
        for _ in range(171):
            log.failed(refusal("limits.max_in_flight"))
        await asyncio.sleep(11)
        log.failed(refusal("limits.max_in_flight", announced=True))
        await asyncio.sleep(30)
        log.failed(refusal("max_requests", announced=True))
        log.failed(refusal("max_requests"))
        log.failed(refusal())
        await asyncio.sleep(3)
        log.close()
        log.failed(refusal())

    run_virtually(scenario())

    assert caplog.messages == [
        "orders: 171 × refused by limits.max_in_flight in 10 s",
        "orders: 1 × refused by max_requests in 3 s",
        "orders: 1 × refused by the limits of all destinations in 3 s",
    ]
    assert {(one.name, one.levelname) for one in caplog.records} == {
        ("fastapi_proxy_di.limits", "WARNING")
    }
    assert vars(caplog.records[0])["count"] == 171
    assert vars(caplog.records[0])["failure"] == "limit_exceeded"


@pytest.mark.parametrize(("level", "lines"), [(logging.INFO, 0), (logging.DEBUG, 1)])
def test_client_that_leaves_a_stream_is_no_warning(
    level: int, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients leave all the time, so only a log of details has a record."""
    caplog.set_level(level, _LOGGER)

    async def scenario() -> None:
        FailureLog("billing").broke_off("http://a", ClientDisconnected("left"))

    run_virtually(scenario())

    assert (
        caplog.messages
        == ["billing: the response of http://a broke off: left (client_disconnected, 1 attempt)"][
            :lines
        ]
    )
    assert [one.levelname for one in caplog.records] == ["DEBUG"][:lines]


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("two different Host headers"),
        ClientDisconnected(),
    ],
)
def test_faults_of_clients_are_not_logged(
    error: ProxyError, caplog: pytest.LogCaptureFixture
) -> None:
    """A client could fill the log."""

    async def scenario() -> None:
        FailureLog("billing").failed(error)

    run_virtually(scenario())

    assert caplog.messages == []


def test_text_of_a_destination_stays_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a destination sends, the record is one line with its attributes."""

    async def scenario() -> None:
        FailureLog("billing").failed(UpstreamDisconnected("bad\r\n\x1b[31mline"))

    run_virtually(scenario())

    (record,) = caplog.records
    assert record.getMessage() == (
        r"billing: a request failed: bad\r\n\x1b[31mline (response_head, 0 attempts)"
    )
    assert attributes(record) == ("billing", None, Failure.RESPONSE_HEAD.value, ())


def attributes(record: logging.LogRecord) -> tuple[Any, ...]:
    """What handlers get besides the text."""
    return tuple(vars(record)[name] for name in ("upstream", "destination", "failure", "attempts"))


@pytest.mark.e2e
async def test_request_without_a_response_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The record has its attempts; the next two requests are one line at the end."""
    dead = f"http://127.0.0.1:{dead_port()}"
    async with gateway(dead) as gate:
        statuses = [(await fetch(gate.address, target="/billing/x")).status for _ in range(3)]

    records = [one for one in caplog.records if one.name == _LOGGER]
    assert statuses == [502] * 3
    assert [one.levelname for one in records] == ["WARNING"] * 2
    assert (
        records[0].getMessage().startswith(f"billing: a request failed: cannot connect to {dead}")
    )
    upstream, destination, failure, attempts = attributes(records[0])
    assert (upstream, destination, failure) == ("billing", dead, "connect")
    assert [one.destination for one in attempts] == [dead]
    assert f"billing: 2 × connect refused by {dead} in" in records[1].getMessage()


@pytest.mark.e2e
@pytest.mark.parametrize(
    "head",
    [
        (
            b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: wrong\r\n\r\n"
        ),
        b"nonsense\r\n\r\n",
    ],
)
async def test_handshake_without_a_response_is_logged(
    head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """An invalid 101 is logged too; the client gets 502."""
    async with (
        ScriptedOrigin(always(head)) as origin,
        gateway(origin.url) as gate,
        connect(gate.address) as client,
    ):
        reply = await shake_hands(client, "/billing/x")

    assert reply.status == 502
    assert [one.levelname for one in caplog.records if one.name == _LOGGER] == ["WARNING"]


@pytest.mark.e2e
async def test_response_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Neither is a failed attempt that a response follows, nor a 500 of the destination."""
    dead = f"http://127.0.0.1:{dead_port()}"
    async with ScriptedOrigin(always(response_bytes(500))) as origin:
        settings = billing(dead, origin.url, policy="first")
        async with Balancer.from_settings(settings) as balancer:
            response = await balancer.client.get("/x")

    assert response.status_code == 500
    assert [one for one in caplog.records if one.name == _LOGGER] == []
