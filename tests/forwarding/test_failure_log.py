"""Failed requests in the log: the reason at once, the number of repeats, no line for each."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from fastapi_proxy_di import Balancer
from fastapi_proxy_di.errors import (
    ClientDisconnected,
    Failure,
    InvalidRequest,
    LimitExceeded,
    NoAvailableDestination,
    ProxyError,
    UpstreamConnectError,
    UpstreamDisconnected,
)
from fastapi_proxy_di.forwarding.failure_log import MAX_KINDS, FailureLog
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
    error.destination = f"http://127.0.0.1:{port}"
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

    first = "billing: a request failed: cannot connect (connect)"
    assert caplog.messages == [
        first,
        "billing: 4 more failed so within 10 s: connect at http://127.0.0.1:1",
        "billing: 4 more failed so within 10 s: connect at http://127.0.0.1:1",
        first,
    ]


def test_failures_at_the_end_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """``close`` logs the number so far; no timer is started after it."""

    async def scenario() -> None:
        log = FailureLog("billing")
        log.failed(refused())
        log.failed(NoAvailableDestination("no destination of billing is available"))
        log.failed(refused())
        log.close()
        log.failed(UpstreamDisconnected("the upstream is shut down"))
        await asyncio.sleep(30)

    run_virtually(scenario())

    assert caplog.messages[2:] == [
        "billing: 1 more failed so within 10 s: connect at http://127.0.0.1:1",
        "billing: a request failed: the upstream is shut down (response_head)",
    ]


def test_kinds_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Above 64, those of further destinations count as one."""

    async def scenario() -> None:
        log = FailureLog("billing")
        for port in range(MAX_KINDS + 5):
            log.failed(refused(port))
        log.close()

    run_virtually(scenario())

    assert len(caplog.messages) == MAX_KINDS + 2
    assert caplog.messages[-1] == "billing: 4 more failed so within 10 s: connect"


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("two different Host headers"),
        ClientDisconnected(),
        LimitExceeded("limits.max_in_flight of billing is reached"),
    ],
)
def test_faults_of_clients_and_limits_are_not_logged(
    error: ProxyError, caplog: pytest.LogCaptureFixture
) -> None:
    """A client could fill the log; a limit is an event."""

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
        r"billing: a request failed: bad\r\n\x1b[31mline (response_head)"
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
    assert "2 more failed" in records[1].getMessage()


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
