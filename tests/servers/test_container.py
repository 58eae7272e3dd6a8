"""The command of the page on containers, as a process: what it does at SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.docs.test_how_to_deployment import CMD, DOCKER_STOP_SECONDS
from tests.servers.commands import serving
from tests.servers.upstream import Endless
from tests.support.http_client import Ending, connect, fetch, request
from tests.support.origins import ScriptedOrigin

pytestmark = pytest.mark.e2e

_OPTIONS = CMD[CMD.index("--timeout-graceful-shutdown") :]
_SLACK_SECONDS = 20.0  # for a busy machine


async def test_command_of_the_dockerfile_ends_before_it_is_killed(tmp_path: Path) -> None:
    """From SIGTERM on no connection is accepted; the stream goes on until the bound."""
    async with (
        ScriptedOrigin(Endless()) as origin,
        serving("uvicorn", " ".join(_OPTIONS), tmp_path, origin.url) as process,
        connect(process.address) as client,
    ):
        await client.send(request(target="/billing/events"))
        stream = await client.read_head()
        await client.read_chunk()
        started = time.monotonic()
        process.signal(signal.SIGTERM)
        await process.line("Waiting for connections to close")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*process.address)
        stream = await client.read_body(stream)
        await process.line("Application shutdown complete")
        await process.end()
        taken = time.monotonic() - started
        await origin.all_left()

    assert stream.ending is Ending.BROKEN
    assert DOCKER_STOP_SECONDS - 2 <= taken < DOCKER_STOP_SECONDS + _SLACK_SECONDS


@pytest.mark.parametrize(
    ("trusted", "seen"), [("127.0.0.0/8", b"203.0.113.7"), ("10.0.0.0/8", b"127.0.0.1")]
)
async def test_forwarded_allow_ips_takes_a_network(
    tmp_path: Path, trusted: str, seen: bytes
) -> None:
    """The client's address comes from a proxy of that network alone."""
    options = f"--proxy-headers --forwarded-allow-ips {trusted}"
    async with (
        ScriptedOrigin() as origin,
        serving("uvicorn", options, tmp_path, origin.url) as process,
    ):
        await fetch(process.address, "GET", "/billing/x", [(b"X-Forwarded-For", b"203.0.113.7")])

    assert origin.request.one(b"x-forwarded-for") == seen


async def test_variable_of_a_service_called_uvicorn_needs_the_port(tmp_path: Path) -> None:
    """The command line wins over the variable that a service link sets."""
    link = {"UVICORN_PORT": "tcp://10.0.0.1:80", "UPSTREAM_BILLING_PORT": "tcp://10.0.0.1:80"}
    async with (
        ScriptedOrigin() as origin,
        serving("uvicorn", "", tmp_path, origin.url, **link) as process,
    ):
        reply = await fetch(process.address, target="/billing/x")

    assert reply.status == 200
