"""The upstream of the demo: its endpoints and its process."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator

import pytest
import uvicorn

from fastapi_proxy_di.cli.background_server import serving
from fastapi_proxy_di.cli.demo import upstream as demo_upstream
from fastapi_proxy_di.cli.demo.load_http import HttpConnection
from fastapi_proxy_di.cli.demo.load_websocket import LoadWebSocket
from fastapi_proxy_di.cli.demo.upstream import DemoUpstream
from tests.support.processes import running

pytestmark = pytest.mark.e2e

COMMAND = [sys.executable, "-m", "fastapi_proxy_di", "demo-upstream", "--name", "q"]


@pytest.fixture
def upstream() -> DemoUpstream:
    """An upstream called q."""
    return DemoUpstream("q")


@pytest.fixture
async def port(upstream: DemoUpstream) -> AsyncIterator[int]:
    """The upstream's port, while it serves in this process."""
    listening = socket.create_server(("127.0.0.1", 0))
    async with serving(uvicorn.Config(upstream.app), listening):
        yield listening.getsockname()[1]


@pytest.fixture
async def connection(port: int) -> AsyncIterator[HttpConnection]:
    """A connection to the upstream."""
    connection = HttpConnection(port)
    yield connection
    connection.close()


async def test_hello_gives_name_and_process(connection: HttpConnection) -> None:
    """Both are in the body and in the headers."""
    response = await connection.send("GET", "/")
    body = json.loads(await connection.read())

    assert (body["upstream"], body["pid"]) == ("q", os.getpid())
    assert response.headers["x-demo-upstream"] == "q"
    assert response.headers["x-demo-pid"] == str(os.getpid())


async def test_health_gives_200(connection: HttpConnection) -> None:
    """Probes of the gateway succeed."""
    response = await connection.send("GET", demo_upstream.HEALTH_PATH)

    assert response.status == 200
    assert json.loads(await connection.read()) == {"status": "ok"}


async def test_upload_counts_a_chunked_body(connection: HttpConnection) -> None:
    """Size and digest are right."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    await connection.send("POST", "/upload", [("transfer-encoding", "chunked")], pieces())
    body = json.loads(await connection.read())

    assert body["bytes"] == 7
    assert body["sha256"] == hashlib.sha256(b"one two").hexdigest()


async def test_events_end_after_their_count(connection: HttpConnection) -> None:
    """A finite stream has the requested number of events."""
    response = await connection.send("GET", "/events?count=3&interval=0.01")
    body = await connection.read()

    assert response.headers["content-type"].startswith("text/event-stream")
    assert [line for line in body.splitlines() if line.startswith(b"id:")] == [
        b"id: 1",
        b"id: 2",
        b"id: 3",
    ]


async def test_events_end_when_the_upstream_stops(
    connection: HttpConnection, upstream: DemoUpstream
) -> None:
    """An endless stream does not delay the shutdown."""
    await connection.send("GET", "/events?interval=60")
    pieces = connection.body()
    first = await anext(pieces)
    upstream.stopping.set()
    rest = [piece async for piece in pieces]

    assert first.startswith(b"id: 1\n")
    assert rest == []


async def test_echo_puts_its_name_in_front(port: int) -> None:
    """The handshake response names the upstream, too."""
    websocket = LoadWebSocket(port, "/echo")
    await websocket.open()
    await websocket.send("hello")
    echo = await websocket.receive()
    await websocket.close()

    assert echo == "q: hello"
    assert websocket.headers["x-demo-upstream"] == "q"


async def test_process_prints_its_address_and_ends_on_sigterm() -> None:
    """The demo waits for the printed line."""
    async with running(*COMMAND, "--port", "0") as process:
        await process.line(f"^{demo_upstream.READY}http://127.0.0.1:\\d+$")
        process.signal(signal.SIGTERM)
        status = await process.end()

    assert (status, len(process.lines)) == (-signal.SIGTERM, 1)


async def test_process_ended_by_ctrl_c_prints_no_traceback() -> None:
    """As for the other commands."""
    async with running(*COMMAND) as process:
        await process.line(f"^{demo_upstream.READY}")
        process.signal(signal.SIGINT)
        status = await process.end()

    assert (status, len(process.lines)) == (130, 1)


async def test_process_reports_a_port_in_use() -> None:
    """Exit status 2 and one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(*COMMAND, "--port", str(port)) as process:
            status = await process.end()

    assert status == 2
    assert process.lines == [f"Cannot listen on 127.0.0.1 port {port}: Address already in use"]


async def test_process_ends_when_its_parent_is_gone() -> None:
    """A demo that was killed leaves no upstream behind."""
    # Not the shell's last command, so that the shell stays as its parent.
    background = ("sh", "-c", '"$@" & echo $!; wait', "sh")
    async with running(*background, *COMMAND, "--with-parent") as shell:
        pid = await shell.line(r"^\d+$")
        await shell.line(f"^{demo_upstream.READY}")
        shell.signal(signal.SIGKILL)
        # The orphan holds the other end of the pipe, so the output ends with the orphan.
        status = await shell.end()

    assert int(pid[0]) != shell.pid
    assert (status, len(shell.lines)) == (-signal.SIGKILL, 2)
