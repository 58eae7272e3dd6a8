"""Dot segments in many spellings, on every server: none gets around a local route or the mount."""

from __future__ import annotations

import asyncio
import contextlib
import re
from urllib.parse import unquote

import pytest
from fastapi import FastAPI
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived

from tests.support.gateways import gateway_app
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import run_app, run_hypercorn

pytestmark = pytest.mark.e2e

_SPELLINGS = [
    b"/billing/x/../admin",
    b"/billing/x/%2e%2e/admin",
    b"/billing/x/%2E%2E/admin",
    b"/billing/x/.%2e/admin",
    b"/billing/x/%2E./admin",
    b"/billing/x/..%2fadmin",
    b"/billing/x/..%2Fadmin",
    b"/billing/x%2f..%2fadmin",
    b"/billing/x%2f%2e%2e%2fadmin",
    b"/billing/x/..\\admin",
    b"/billing/x\\..\\admin",
    b"/billing/x/..%5cadmin",
    b"/billing/x%5C%2e%2E%5Cadmin",
    b"/billing/x/..;/admin",
    b"/billing/x/..;a=b/admin",
    b"/billing/x/%2e%2e;a=b/admin",
    b"/billing/x//..//admin",
    b"/billing/x/y/../../admin",
    b"/billing/x/./../admin",
    b"/billing/./admin",
    b"/billing/%2e/admin",
    b"/billing/.;/admin",
    b"/billing/.%2fadmin",
    b"/billing/.\\admin",
    b"/billing/..",
    b"/billing/../billing/admin",
    b"/billing/../../admin",
    b"/billing/%2e%2e/%2e%2e/admin",
    b"/billing/..%2f..%2fadmin",
    b"/billing/admin/..",
    b"/billing/admin/../admin",
    b"/billing/admin/.",
    b"/billing/x/..#/admin",
    b"/billing/x/..?/admin",
    b"/x/../billing/admin",
    b"/./billing/admin",
    b"/billing/x/../../billing/admin",
    b"//billing/../billing/admin",
    b"http://gateway.test/billing/x/../admin",
    b"http://gateway.test/billing/..",
]


def served(target: bytes) -> str:
    """Give the path that the most lenient destination would serve, decoded once."""
    path = unquote(target.decode("latin-1").partition("?")[0].partition("#")[0])
    kept: list[str] = []
    for segment in re.split(r"[/\\]", path):
        name = segment.partition(";")[0]
        if name == "..":
            kept = kept[:-1] if kept else ["above the mount"]
        elif name not in {"", "."}:
            kept.append(name)
    return "/" + "/".join(kept)


async def by_http2(address: tuple[str, int], target: bytes) -> int | None:
    """Send a request with prior knowledge; give its status, ``None`` if the server ends it."""
    reader, writer = await asyncio.open_connection(*address)
    config = H2Configuration(header_encoding=None, validate_outbound_headers=False)
    connection = H2Connection(config)
    connection.initiate_connection()
    pseudo = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"gateway.test")]
    connection.send_headers(1, [*pseudo, (b":path", target)], end_stream=True)
    writer.write(connection.data_to_send())
    status: int | None = None
    with contextlib.closing(writer):
        while status is None and (data := await reader.read(1 << 16)):
            for event in connection.receive_data(data):
                if isinstance(event, ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
    return status


@pytest.mark.parametrize("server", ["httptools", "h11", "hypercorn", "hypercorn by HTTP/2"])
async def test_no_spelling_of_dot_segments_gets_around_a_local_route(server: str) -> None:
    """The local route is a guard of ``/admin``; RFC 3986 section 3.3.

    What the destination gets, if anything, is below the mount and not ``/admin``, as the most
    lenient server reads it.
    """
    app = FastAPI()

    @app.get("/billing/admin")
    async def admin() -> str:
        return "guarded"

    async with ScriptedOrigin() as origin:
        proxied = gateway_app(origin.url, app=app)
        run = run_hypercorn(proxied) if "hypercorn" in server else run_app(proxied, http=server)
        around = []
        refused = 0
        async with run as running:
            for target in _SPELLINGS:
                before = len(origin.requests)
                if server.endswith("HTTP/2"):
                    status = await by_http2(running.address, target)
                else:
                    status = (await fetch(running.address, target=target)).status
                refused += status == 400
                for received in origin.requests[before:]:
                    path = served(received.target)
                    if path == "/admin" or "above" in path:
                        around.append((target, status, received.target))

    assert around == []
    assert refused >= 30
