"""The same gateway under other servers: uvicorn with two workers, hypercorn and granian."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.e2e.conftest import Upstream
from tests.e2e.servers import granian, hypercorn, uvicorn
from tests.support.http_client import Client, Ending, connect, fetch, request
from tests.support.origins import ScriptedOrigin
from tests.support.processes import Process
from tests.support.websocket_client import Closed, open_websocket

_APP = "tests.e2e.gateway:app"
_CONNECTIONS = 100

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["uvicorn", "hypercorn"])
async def server(
    request: pytest.FixtureRequest, shared_upstream: Upstream
) -> AsyncIterator[Process]:
    """Run the gateway in two workers of uvicorn, or in hypercorn."""
    start = (
        uvicorn(_APP, "--workers", "2", environment=shared_upstream.environment)
        if request.param == "uvicorn"
        else hypercorn(_APP, environment=shared_upstream.environment)
    )
    async with start as running:
        yield running


async def test_requests_are_forwarded(server: Process) -> None:
    """A GET, and a POST of some megabytes with its hash."""
    body = os.urandom(3_000_000)
    got = await fetch(server.address, "GET", "/billing/hello")
    posted = await fetch(server.address, "POST", "/billing/digest", body=body)

    assert got.json() == {"hello": "world"}
    assert posted.json() == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


async def test_event_arrives_before_the_next_is_sent(
    server: Process, shared_upstream: Upstream
) -> None:
    """No event is held back, and the stream ends when the upstream's ends."""
    async with connect(server.address) as client:
        await client.send(request(target="/billing/events"))
        head = await client.read_head()
        first = await client.read_chunk()
        await fetch(shared_upstream.app.address, "POST", "/release")
        rest = await client.read_body(head)

    assert first == b"data: first\n\n"
    assert rest.body == b"data: second\n\n"
    assert rest.ending is Ending.LAST_CHUNK


async def test_websocket_is_forwarded(server: Process) -> None:
    """A message is echoed, and the close is clean."""
    async with open_websocket(server.address, "/billing/live") as tunnel:
        await tunnel.send("hello")
        heard = await tunnel.recv()
        closed = await tunnel.close(1000)

    assert heard == "heard hello"
    assert closed == Closed(1000)


async def test_both_workers_forward(shared_upstream: Upstream) -> None:
    """Each worker has its own pool and serves requests."""
    responses: dict[int, object] = {}
    async with uvicorn(_APP, "--workers", "2", environment=shared_upstream.environment) as server:
        while len(responses) < 2:  # the second worker may not listen yet
            responses |= await _ask_many(server)

    assert server.pid not in responses
    assert list(responses.values()) == [{"hello": "world"}] * 2


async def _ask_many(server: Process) -> dict[int, object]:
    """Give the responses of all workers that got a connection."""
    responses: dict[int, object] = {}
    async with contextlib.AsyncExitStack() as stack:
        # Open at the same time, so that one busy worker leaves some to the other.
        clients: list[Client] = [
            await stack.enter_async_context(connect(server.address)) for _ in range(_CONNECTIONS)
        ]
        for client in clients:
            await client.send(request(target="/pid"))
        for client in clients:
            pid = (await client.read_response()).json()
            if pid not in responses:
                await client.send(request(target="/billing/hello"))
                responses[pid] = (await client.read_response()).json()
    return responses


async def test_http2_cookie_crumbs_are_joined() -> None:
    """RFC 9113 section 8.2.3; under granian, because hypercorn joins them itself."""
    crumbs = [("Cookie", "session=abc"), ("X-A", "1"), ("Cookie", "theme=dark")]
    async with ScriptedOrigin() as origin:
        environment = {"UPSTREAM_BILLING_DESTINATIONS": origin.url}
        async with (
            granian(_APP, "--http", "2", environment=environment) as gateway,
            httpx.AsyncClient(http1=False, http2=True, trust_env=False) as client,
        ):
            await client.get(f"{gateway.url}/billing/x", headers=crumbs)

    assert origin.request.all(b"cookie") == [b"session=abc; theme=dark"]
