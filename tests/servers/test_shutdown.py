"""SIGTERM while an event stream and a WebSocket are open, under each server."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from tests.servers.commands import serving
from tests.servers.upstream import Endless
from tests.support.http_client import Ending, connect, fetch, request
from tests.support.origins import ScriptedOrigin
from tests.support.websocket_client import Closed, open_websocket

pytestmark = pytest.mark.e2e

_SLACK_SECONDS = 20.0  # for a busy machine

# From Python 3.12 on, hypercorn waits for open connections before its graceful timeout begins.
_HYPERCORN: Final = [
    ("hypercorn", "", 3, 1012, 1012),
    ("hypercorn", "--graceful-timeout 1", 1, 1012, 1012),
]


@pytest.mark.parametrize(
    ("server", "options", "seconds", "client_code", "upstream_code"),
    [
        ("uvicorn", "--timeout-graceful-shutdown 1", 1, 1012, 1012),
        ("uvicorn", "--timeout-graceful-shutdown 1 --workers 2", 1, 1012, 1012),
        ("gunicorn", "-c gunicorn_conf.py", 5, 1012, 1012),
        ("gunicorn", "-k uvicorn_worker.UvicornWorker --graceful-timeout 1", 1, 1012, 1012),
        ("gunicorn", "-k asgi --graceful-timeout 1", 1, 1006, None),
        ("granian", "--workers-kill-timeout 1", 1, 1006, None),
        *(_HYPERCORN if sys.version_info < (3, 12) else []),
    ],
)
async def test_server_ends_within_its_bound(
    tmp_path: Path,
    server: str,
    options: str,
    seconds: float,
    client_code: int,
    upstream_code: int | None,
) -> None:
    """The stream is visibly broken, and the upstream's side of both exchanges is closed."""
    upstream = Endless()
    async with (
        ScriptedOrigin(upstream) as origin,
        serving(server, options, tmp_path, origin.url) as process,
        connect(process.address) as client,
        open_websocket(process.address, "/billing/live") as tunnel,
    ):
        await client.send(request(target="/billing/events"))
        stream = await client.read_head()
        await client.read_chunk()
        started = time.monotonic()
        process.signal(signal.SIGTERM)
        closed = await tunnel.ended()
        stream = await client.read_body(stream)
        await process.end()
        taken = time.monotonic() - started
        await origin.all_left()

    assert closed == Closed(client_code)
    assert upstream.code == upstream_code
    assert stream.ending is Ending.BROKEN
    assert seconds <= taken < seconds + _SLACK_SECONDS


@pytest.mark.parametrize("server", ["fastapi run", "uvicorn"])
async def test_server_without_a_bound_waits_for_the_stream(tmp_path: Path, server: str) -> None:
    """The WebSocket is closed at once; the stream goes on and ends in order, then the process."""
    upstream = Endless()
    async with (
        ScriptedOrigin(upstream) as origin,
        serving(server, "", tmp_path, origin.url) as process,
        connect(process.address) as client,
        open_websocket(process.address, "/billing/live") as tunnel,
    ):
        await client.send(request(target="/billing/events"))
        stream = await client.read_head()
        await client.read_chunk()
        process.signal(signal.SIGTERM)
        closed = await tunnel.ended()
        await process.line("Waiting for connections to close")
        upstream.finish.set()
        stream = await client.read_body(stream)
        await process.end()

    assert closed == Closed(1012)
    assert stream.ending is Ending.LAST_CHUNK


async def test_second_interrupt_ends_fastapi_run(tmp_path: Path) -> None:
    """Ctrl+C twice: the second one does not wait for the stream."""
    async with (
        ScriptedOrigin(Endless()) as origin,
        serving("fastapi run", "", tmp_path, origin.url) as process,
        connect(process.address) as client,
    ):
        await client.send(request(target="/billing/events"))
        stream = await client.read_head()
        process.signal(signal.SIGINT)
        await process.line("Waiting for connections to close")
        process.signal(signal.SIGINT)
        stream = await client.read_body(stream)
        await process.end()
        await origin.all_left()

    assert stream.ending is Ending.BROKEN


async def test_total_timeout_bounds_the_shutdown_of_fastapi_run(tmp_path: Path) -> None:
    """Each exchange ends by itself after ``timeouts.total``."""
    async with (
        ScriptedOrigin(Endless()) as origin,
        serving(
            "fastapi run", "", tmp_path, origin.url, UPSTREAM_BILLING_TIMEOUTS__TOTAL="2"
        ) as process,
        connect(process.address) as client,
    ):
        await client.send(request(target="/billing/events"))
        stream = await client.read_head()
        process.signal(signal.SIGTERM)
        stream = await client.read_body(stream)
        await process.end()
        await origin.all_left()

    assert stream.ending is Ending.BROKEN


@pytest.mark.parametrize("server", ["granian", "hypercorn"])
async def test_append_needs_no_option_of_these_servers(tmp_path: Path, server: str) -> None:
    """They report the real peer, so the chain of a trusted proxy gets its address."""
    async with (
        ScriptedOrigin() as origin,
        serving(
            server,
            "",
            tmp_path,
            origin.url,
            UPSTREAM_BILLING_FORWARDED__MODE="append",
            UPSTREAM_BILLING_FORWARDED__TRUSTED_PROXIES="127.0.0.1",
        ) as process,
    ):
        await fetch(process.address, "GET", "/billing/x", [(b"X-Forwarded-For", b"203.0.113.7")])

    assert origin.request.one(b"x-forwarded-for") == b"203.0.113.7, 127.0.0.1"
