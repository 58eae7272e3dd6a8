"""``proxy_app`` served alone under each server, started by its lifespan or by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from starlette.types import Message

from fastapi_proxy_di import ProxyNotStarted, SettingsError, Upstream, proxy_app
from tests.e2e import servers
from tests.integration.alone import refuse
from tests.support.gateways import billing
from tests.support.http_client import Ending, connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, chunk, echo
from tests.support.processes import Process
from tests.support.servers import (
    Running,
    StartupFailed,
    dead_port,
    run_app,
    run_hypercorn,
)
from tests.support.websocket_client import open_websocket, shake_hands
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


Served = AbstractAsyncContextManager[Running | Process]


def granian(url: str, *options: str) -> Served:
    """Serve the application by granian, which needs its own process."""
    environment = {"UPSTREAM_BILLING_DESTINATIONS": url}
    return servers.granian("tests.integration.alone:billing", *options, environment=environment)


def uvicorn(url: str, **options: object) -> Served:
    """Serve the application by uvicorn."""
    return run_app(proxy_app(billing(url), guard=refuse), **options)


def hypercorn(url: str, **options: object) -> Served:
    """Serve the application by hypercorn."""
    return run_hypercorn(proxy_app(billing(url), guard=refuse), **options)


every_server = pytest.mark.parametrize("serve", [uvicorn, hypercorn, granian])


@every_server
async def test_requests_are_forwarded(serve: Callable[[str], Served]) -> None:
    """Unchanged, and without X-Forwarded-Prefix."""
    async with ScriptedOrigin(echo) as origin, serve(origin.url) as server:
        reply = await fetch(server.address, "POST", "/a%2Fb//c%FF?q=%20", body=b"hello")

    assert reply.json() == {"method": "POST", "target": "/a%2Fb//c%FF?q=%20", "body": "hello"}
    assert origin.request.one(b"x-forwarded-prefix") is None


@every_server
async def test_websockets_are_forwarded(serve: Callable[[str], Served]) -> None:
    """Messages both ways."""
    upstream = EchoApp()
    async with (
        echo_server(upstream) as origin,
        serve(origin.url) as server,
        open_websocket(server.address, "/a%2Fb") as client,
    ):
        await client.send("hello")
        heard = await client.recv()

    assert heard == "hello"
    assert upstream.scope["raw_path"] == b"/a%2Fb"


@every_server
async def test_guard_refuses(serve: Callable[[str], Served]) -> None:
    """HTTP and WebSocket."""
    headers = [(b"X-Refuse", b"1")]
    async with ScriptedOrigin() as origin, serve(origin.url) as server:
        reply = await fetch(server.address, target="/x", headers=headers)
        async with connect(server.address) as client:
            handshake = await shake_hands(client, "/x", headers)

    assert (reply.status, handshake.status, origin.connections) == (401, 401, 0)


@every_server
async def test_failures_are_problem_documents(serve: Callable[[str], Served]) -> None:
    """Without a framework around the application."""
    async with serve(f"http://127.0.0.1:{dead_port()}") as server:
        reply = await fetch(server.address, target="/x")
        async with connect(server.address) as client:
            handshake = await shake_hands(client, "/x")

    assert (reply.status, handshake.status) == (502, 502)
    assert reply.json()["failure"] == "connect"
    assert reply.one(b"content-type") == b"application/problem+json"


@every_server
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst",
    ],
    ids=["chunked", "length"],
)
async def test_response_that_breaks_off_is_broken(
    serve: Callable[[str], Served], head: bytes
) -> None:
    """The client does not see a complete response."""

    async def break_off(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(head)

    async with ScriptedOrigin(break_off) as origin, serve(origin.url) as server:
        reply = await fetch(server.address, target="/x")

    assert (reply.status, reply.body) == (200, b"first")
    assert reply.ending is Ending.BROKEN


ROOTED: dict[str, Callable[[str], Served]] = {
    "uvicorn": lambda url: uvicorn(url, root_path="/api"),
    "hypercorn": lambda url: hypercorn(url, root_path="/api"),
    "granian": lambda url: granian(url, "--url-path-prefix", "/api"),
}


@pytest.mark.parametrize("server", ROOTED)
async def test_root_path_is_the_prefix(server: str) -> None:
    """A proxy in front has removed it, or left it for hypercorn and granian."""
    targets = ["/x%2Fy"] if server == "uvicorn" else ["/x%2Fy", "/api/x%2Fy"]
    async with ScriptedOrigin() as origin, ROOTED[server](origin.url) as running:
        for target in targets:
            await fetch(running.address, target=target)

    for received in origin.requests:
        assert received.target == b"/x%2Fy"
        assert received.one(b"x-forwarded-prefix") == b"/api"


async def test_settings_faults_end_the_start() -> None:
    """The server shows all of them in one message."""
    with pytest.raises(StartupFailed, match="UPSTREAM_BILLING_DESTINATIONS"):
        await run_app(proxy_app("billing")).__aenter__()


async def test_server_without_lifespan_serves_nothing() -> None:
    """500, and the log has the line to add."""
    async with run_app(proxy_app("billing"), lifespan="off") as server:
        reply = await fetch(server.address, target="/x")

    assert reply.status == 500
    assert "it needs the server's lifespan" in reply.json()["detail"]


async def test_running_serves_without_the_servers_lifespan() -> None:
    """The balancer is available as well."""
    async with ScriptedOrigin() as origin:
        proxy = proxy_app(billing(origin.url))
        async with proxy.running(), run_app(proxy, lifespan="off") as server:
            reply = await fetch(server.address, target="/x")
            (destination,) = Upstream("billing").of(proxy).destinations

    assert (reply.status, destination.successes) == (200, 1)


async def test_running_raises_every_fault() -> None:
    """As the start of an app does."""
    proxy = proxy_app("billing")
    with pytest.raises(SettingsError, match="UPSTREAM_BILLING_DESTINATIONS"):
        await proxy.running().__aenter__()
    with pytest.raises(ProxyNotStarted):
        Upstream("billing").of(proxy)


async def test_lifespan_reports_a_failed_start() -> None:
    """By the ASGI message, and then the exception."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(SettingsError):
        await proxy_app("billing")({"type": "lifespan"}, receive, send)

    (failed,) = sent
    assert failed["type"] == "lifespan.startup.failed"
    assert "UPSTREAM_BILLING_DESTINATIONS" in failed["message"]


async def test_lifespan_reports_a_failed_shutdown() -> None:
    """The upstream is closed although the server has ended."""
    sent: list[str] = []

    async def receive() -> Message:
        if sent:
            raise ConnectionError("the server is gone")
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message["type"])

    proxy = proxy_app(billing("http://127.0.0.1:1"))
    with pytest.raises(ConnectionError):
        await proxy({"type": "lifespan"}, receive, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.failed"]
    with pytest.raises(ProxyNotStarted):
        Upstream("billing").of(proxy)


async def test_shutdown_cuts_open_streams() -> None:
    """The client sees the break, and the upstream's connection ends."""
    left = asyncio.Event()

    async def stream(connection: Connection) -> None:
        await connection.read_request()
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        await connection.send(head + chunk(b"first"))
        await connection.peer_left()
        left.set()

    async with ScriptedOrigin(stream) as origin:
        async with uvicorn(origin.url) as server:
            stack = connect(server.address)
            client = await stack.__aenter__()
            await client.send(request(target="/events"))
            head = await client.read_head()
            first = await client.read_chunk()
        rest = await client.read_body(head)
        await stack.__aexit__(None, None, None)
        async with asyncio.timeout(10):
            await left.wait()

    assert first == b"first"
    assert rest.ending is Ending.BROKEN


async def test_shutdown_closes_open_websockets() -> None:
    """With 1012, service restart."""
    async with echo_server(EchoApp()) as origin:
        async with uvicorn(origin.url) as server:
            stack = open_websocket(server.address, "/live")
            client = await stack.__aenter__()
            await client.send("hello")
            assert await client.recv() == "hello"
        closed = await client.ended()
        await stack.__aexit__(None, None, None)

    assert closed.code == 1012
