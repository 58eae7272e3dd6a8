"""The README's ten lines under a real uvicorn, in front of a real nginx and a real uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as connect_websocket

from tests.e2e.conftest import Upstream
from tests.e2e.servers import curl, uvicorn
from tests.support.gateways import until
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.processes import ROOT, Process, running

pytestmark = pytest.mark.e2e


_README = str(ROOT / "docs" / "src" / "readme")
_KEY = "x-api-key: let-me-in"
_UPLOAD_BYTES = 50_000_000


@contextlib.asynccontextmanager
async def gateway(upstream: Upstream) -> AsyncIterator[Process]:
    """Run the README's app, as the README says."""
    options = ("--app-dir", _README, "--timeout-graceful-shutdown", "2")
    async with uvicorn("app:app", *options, environment=upstream.environment) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(shared_real_upstream: Upstream) -> AsyncIterator[Process]:
    """Run the gateway once for all tests that read no record."""
    async with gateway(shared_real_upstream) as running:
        yield running


_shares = pytest.mark.asyncio(loop_scope="module")


async def printed(process: asyncio.subprocess.Process) -> bytes:
    """Give the output of a command that must succeed."""
    async with asyncio.timeout(100):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return out


async def exchange(server: Process, headers: Mapping[str, str]) -> str:
    """Say hello over a WebSocket, as a client of the library does."""

    def say() -> str:
        url = f"ws://127.0.0.1:{server.port}/billing/live"
        with connect_websocket(url, additional_headers=headers) as websocket:
            websocket.send("hello")
            return str(websocket.recv(timeout=100))

    return await asyncio.to_thread(say)


@_shares
async def test_curl_gets_a_response(server: Process) -> None:
    """A plain GET is forwarded."""
    body = await printed(await curl("-H", _KEY, f"{server.url}/billing/hello"))

    assert json.loads(body) == {"hello": "world"}


async def test_curl_commands_of_the_readme_get_what_it_says() -> None:
    """401, 403, the path as it was sent, the tenant of the endpoint, and the summary."""
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^curl (.*http://127.*?) +# (.*)$", text, re.MULTILINE)
    seen = []
    invoice = always(response_bytes(body=b'{"total":70}'))
    async with ScriptedOrigin(invoice) as origin:
        environment = {"UPSTREAM_BILLING_DESTINATIONS": origin.url}
        async with uvicorn("app:app", "--app-dir", _README, environment=environment) as server:
            for command, said in commands:
                words = shlex.split(command.replace("http://127.0.0.1:8000", server.url))
                out = await printed(await curl("-w", " %{http_code}", *words))
                seen.append((said, out.decode().rpartition(" ")[2], out.decode()))
    sent = [(one.target, one.all(b"x-tenant")) for one in origin.requests]

    assert [(said, status) for said, status, _ in seen] == [
        ("401", "401"),
        ("403", "403"),
        ("the upstream gets /files/a%2Fb", "200"),
        ("the upstream gets x-tenant: acme", "200"),
        ('{"number":7,"total":70}', "200"),
    ]
    assert seen[-1][2].startswith(seen[-1][0])
    assert sent == [(b"/files/a%2Fb", []), (b"/v2/pay", [b"acme"]), (b"/invoices/7", [])]


@pytest.mark.parametrize("real_upstream", ["nginx"], indirect=True)
async def test_curl_gets_a_file_of_nginx(real_upstream: Upstream) -> None:
    """A file that nginx serves itself is forwarded as well."""
    async with gateway(real_upstream) as server:
        body = await printed(await curl("-H", _KEY, f"{server.url}/billing/file"))

    assert body == b"a file of nginx\n"
    assert real_upstream.seen == [[], ["GET /file"]]


@_shares
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
async def test_curl_uploads_fifty_megabytes(server: Process, tmp_path: Path, framing: str) -> None:
    """The hash shows that every byte arrived in order."""
    body = os.urandom(_UPLOAD_BYTES)
    file = tmp_path / "upload"
    file.write_bytes(body)
    words = ["-H", _KEY, "-T", str(file), "-X", "POST"]
    if framing == "chunked":
        words += ["-H", "Transfer-Encoding: chunked"]
    response = await printed(await curl(*words, f"{server.url}/billing/digest"))

    assert json.loads(response) == {
        "bytes": _UPLOAD_BYTES,
        "sha256": hashlib.sha256(body).hexdigest(),
    }


@_shares
async def test_curl_shows_an_event_before_the_next_is_sent(
    server: Process, shared_real_upstream: Upstream
) -> None:
    """The upstream sends the second event only after the client has seen the first."""
    process = await curl("-N", "-H", _KEY, f"{server.url}/billing/events")
    assert process.stdout is not None
    async with asyncio.timeout(100):
        first = await process.stdout.readuntil(b"\n\n")
    await fetch(shared_real_upstream.app.address, "POST", "/release")
    rest = await printed(process)

    assert first == b"data: first\n\n"
    assert rest == b"data: second\n\n"


@_shares
async def test_websocket_client_talks_to_the_upstream(server: Process) -> None:
    """A client of the library ``websockets`` opens, sends, receives and closes."""
    heard = await exchange(server, {"x-api-key": "let-me-in"})

    assert heard == "heard hello"


async def test_request_without_credentials_reaches_no_upstream(real_upstream: Upstream) -> None:
    """No record has a line before the first request with the key."""
    nothing: list[list[str]] = [[] for _ in real_upstream.records]
    async with gateway(real_upstream) as server:
        statuses = [
            (await fetch(server.address, method, f"/billing/{path}")).status
            for method, path in (("GET", "hello"), ("POST", "digest"), ("GET", "file"))
        ]
        with pytest.raises(InvalidStatus) as denied:
            await exchange(server, {})
        with pytest.raises(InvalidStatus):
            await exchange(server, {"x-api-key": "guess"})
        before = real_upstream.seen
        await exchange(server, {"x-api-key": "let-me-in"})
        # nginx writes its line when the exchange is over.
        await until(lambda: all(real_upstream.seen), 10)

    assert statuses == [401, 401, 401]
    assert denied.value.response.status_code == 401
    assert before == nothing
    assert real_upstream.seen[0] == ["websocket /live"]
    assert real_upstream.seen[1:] in ([], [["GET /live"]])


async def test_wrong_settings_stop_the_app_with_one_message_for_all() -> None:
    """Both variables are named with their faults, before any port is open."""
    environment = {
        "UPSTREAM_BILLING_DESTINATIONS": "ftp://x",
        "UPSTREAM_BILLING_POLICY": "fastest",
    }
    words = (sys.executable, "-m", "uvicorn", "--app-dir", _README, "app:app", "--port", "0")
    async with running(*words, environment=environment) as server:
        status = await server.end()

    lines = list(server.lines)
    assert status == 3
    destinations = [line for line in lines if "UPSTREAM_BILLING_DESTINATIONS" in line]
    policy = [line for line in lines if "UPSTREAM_BILLING_POLICY" in line]
    assert len(destinations) == len(policy) == 1
    assert "ftp://x" in destinations[0]
    assert "fastest" in policy[0]
    assert abs(lines.index(destinations[0]) - lines.index(policy[0])) == 1
    assert not any("running on" in line for line in lines)
