"""A server that stops while somebody looks at the status page."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from time import monotonic

import httpx
import pytest

from tests.support.processes import Process, running
from tests.support.servers import free_port

pytestmark = pytest.mark.e2e

LONG = 9.0
"""Seconds that a request for events may wait; a server that stops earlier has not waited."""


@contextlib.asynccontextmanager
async def served(*options: str) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    """Run the gateway under uvicorn with these options, with a client that is logged in."""
    port = free_port()
    app = "tests.integration.status_page.served:app"
    command = (sys.executable, "-m", "uvicorn", app, "--port", str(port), *options)
    async with running(*command) as process:
        await process.line("Uvicorn running")
        url = f"http://127.0.0.1:{port}/upstreams/"
        headers = {"authorization": "Basic YTpi"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as client:
            yield process, client


async def ended(process: Process) -> float:
    """Stop the process; give the seconds until it has ended."""
    began = monotonic()
    process.signal(signal.SIGTERM)
    assert await process.end() in (0, -signal.SIGTERM), process.lines
    assert not [line for line in process.lines if "Traceback" in line]
    return monotonic() - began


async def test_waiting_request_ends_before_a_stop() -> None:
    """The server waits for its response, so the longest wait is the longest delay."""
    async with served() as (process, client):
        position = (await client.get("status.json")).json()["position"]
        asked = {"since": position, "wait": "1.5"}
        waiting = asyncio.create_task(client.get("events", params=asked))
        await client.get("status.json")  # later than the question for events
        stopped = await ended(process)
        response = await waiting

        assert (response.status_code, response.json()["events"]) == (200, [])
        assert stopped < LONG


async def test_waiting_request_that_the_stop_cancels_ends_quietly() -> None:
    """When the time that the server gives is over: with a response, and no line of an error."""
    async with served("--timeout-graceful-shutdown", "1") as (process, client):
        position = (await client.get("status.json")).json()["position"]
        asked = {"since": position, "wait": str(LONG)}
        waiting = asyncio.create_task(client.get("events", params=asked))
        await client.get("status.json")  # later than the question for events
        stopped = await ended(process)
        response = await waiting
        errors = [line for line in process.lines if "Exception" in line]

        assert (response.status_code, response.json()["events"]) == (200, [])
        assert errors == []
        assert stopped < LONG


async def test_open_page_delays_no_stop() -> None:
    """The page asks twice a second, without waiting; its connection stays open in between.

    A request that waits ends with the next event.
    """
    async with served() as (process, client):
        position = (await client.get("status.json")).json()["position"]
        asked = {"since": position, "wait": str(LONG)}
        waiting = asyncio.create_task(client.get("events", params=asked))
        drained = {"destination": "http://127.0.0.1:9"}
        assert (await client.post("billing/drain", json=drained)).status_code == 200
        news = (await waiting).json()
        for _ in range(3):
            response = await client.get("events", params={"since": news["position"]})
            assert response.json()["events"] == []

        assert [one["kind"] for one in news["events"]] == ["DestinationDraining"]
        assert await ended(process) < LONG / 2
