"""HTTP/2 connections: dialling them, choosing one for a request, and when they end."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI
from h2.events import RequestReceived
from h2.settings import SettingCodes
from websockets.sync.client import connect as connect_websocket

from fastapi_proxy_di import Balancer, SettingsError, proxy_router
from fastapi_proxy_di.errors import (
    Failure,
    InvalidRequest,
    ProxyError,
    UpstreamConnectError,
    UpstreamTimeout,
)
from fastapi_proxy_di.transport.http2.transport import Http2Transport
from tests.support.gateways import billing, gateway, until
from tests.support.http_client import connect, fetch
from tests.support.origins import Connection, ScriptedOrigin
from tests.support.servers import StartupFailed, blackhole, dead_port, run_app
from tests.transport.http2.peer import Peer, asks, hypercorn, respond_to_all, scripted, transport_to


@pytest.mark.e2e
async def test_http2_is_chosen_by_alpn_over_tls(certificates: tuple[str, str, str]) -> None:
    """The client's request arrives unchanged."""
    cert, key, ca = certificates
    async with (
        hypercorn((cert, key)) as port,
        gateway(
            f"https://127.0.0.1:{port}/base",
            f"https://127.0.0.1:{port}/other",
            policy="first",
            http_version="2",
            tls={"ca_file": ca},
        ) as gate,
    ):
        reply = await fetch(
            gate.address,
            "POST",
            "/billing/a%2Fb//c?q=%20",
            [(b"X-Two", b"1"), (b"X-Two", b"2")],
            b"x" * 300_000,
        )
        head = await fetch(gate.address, "HEAD", "/billing/x")

    seen = reply.json()
    assert (reply.status, reply.one(b"x-a"), head.status) == (200, b"1", 200)
    assert (seen["version"], seen["method"], seen["size"]) == ("2", "POST", 300_000)
    assert (seen["target"], seen["query"]) == ("/base/a%2Fb//c", "q=%20")
    assert [pair for pair in seen["headers"] if pair[0] == "x-two"] == [
        ["x-two", "1"],
        ["x-two", "2"],
    ]
    names = [name for name, _ in seen["headers"]]
    assert "user-agent" not in names
    assert dict(seen["headers"])["host"] == f"127.0.0.1:{port}"


@pytest.mark.e2e
async def test_http2_by_prior_knowledge_streams_both_ways() -> None:
    """Without TLS from the first byte; pieces come back while others are sent."""
    async with (
        hypercorn() as port,
        gateway(f"http://127.0.0.1:{port}", http_version="2") as gate,
        connect(gate.address) as client,
    ):
        await client.send(
            b"POST /billing/stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await client.send(b"3\r\none\r\n")
        await client.read_head()
        first = await client.read_chunk()
        await client.send(b"3\r\ntwo\r\n0\r\n\r\n")
        second = await client.read_chunk()

    assert (first, second) == (b"one", b"two")


@pytest.mark.e2e
async def test_http2_requests_share_a_connection() -> None:
    """Requests at the same time wait for one dial and use one connection."""
    async with (
        hypercorn() as port,
        Balancer.from_settings(
            billing(f"http://127.0.0.1:{port}", http_version="2", health={"path": "/health"})
        ) as balancer,
    ):
        replies = await asyncio.gather(*(balancer.client.get(f"/{n}") for n in range(30)))
        route = next(iter(balancer._running.transports.by_destination.values()))
        assert isinstance(route.transport, Http2Transport)
        connections = route.transport.connections

    assert [one.json()["target"] for one in replies] == [f"/{n}" for n in range(30)]
    assert (connections, balancer.destinations[0].healthy) == (1, True)


@pytest.mark.e2e
async def test_http2_upstream_gets_websockets_over_http1(
    certificates: tuple[str, str, str],
) -> None:
    """WebSockets need an upgrade, which HTTP/2 does not have."""
    cert, key, ca = certificates

    def say(url: str) -> str:
        with connect_websocket(url) as websocket:
            return str(websocket.recv(timeout=10))

    async with (
        hypercorn((cert, key)) as port,
        gateway(f"https://127.0.0.1:{port}", http_version="2", tls={"ca_file": ca}) as gate,
    ):
        version = await asyncio.to_thread(say, f"ws://{gate.running.authority}/billing/ws")

    assert version == "1.1"


async def test_http2_request_has_pseudo_headers_and_no_framing_headers() -> None:
    """Pseudo-headers from method, Host and target; no framing headers of HTTP/1.1."""
    seen: list[list[tuple[bytes, bytes]]] = []

    async def script(peer: Peer) -> None:
        event = await peer.next(RequestReceived)
        seen.append([(bytes(name), bytes(value)) for name, value in event.headers])
        peer.respond(event.stream_id, 204)
        peer.h2.end_stream(event.stream_id)
        peer.flush()
        await peer.left()

    headers = ((b"te", b"trailers"), (b"connection", b"te"), (b"transfer-encoding", b"chunked"))
    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(b"POST", *headers, chunked=True), b"", more=False)
        await exchange.head()
        nothing = await exchange.read()
        exchange.close()

    assert (exchange.status, nothing, exchange.complete) == (204, b"", True)
    assert seen == [
        [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"billing.example"),
            (b":path", b"/x?y=%20"),
            (b"te", b"trailers"),
        ]
    ]


@pytest.mark.parametrize("pair", [(b"x", b"1\r\ny: 2"), (b"x\0", b"1")])
async def test_http2_request_that_smuggles_is_never_sent(pair: tuple[bytes, bytes]) -> None:
    """A line end within a header could be one to an HTTP/1.1 server behind the destination."""

    async def script(peer: Peer) -> None:
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        with pytest.raises(InvalidRequest):
            await transport.start(asks(b"GET", pair), b"", more=False)


async def test_http2_destination_that_speaks_http1_is_a_failure() -> None:
    """With prior knowledge, the error says so."""
    refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"

    async def script(peer: Peer) -> None:
        peer.writer.write(refusal)
        await peer.left()

    async with scripted(script, greet=False) as (url, _), transport_to(url) as transport:
        with pytest.raises(UpstreamConnectError, match="not speaking HTTP/2"):
            await transport.start(asks(), b"", more=False)


async def test_http2_post_goes_elsewhere_from_a_destination_that_speaks_http1() -> None:
    """No request was sent, as on a refused connection: any method, free of the budget."""

    async def script(peer: Peer) -> None:
        peer.writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await peer.left()

    async with (
        scripted(script, greet=False) as (bad, _),
        scripted(respond_to_all) as (good, _),
        Balancer.from_settings(
            billing(bad, good, policy="first", http_version="2", retries={"attempts": 0})
        ) as balancer,
    ):
        response = await balancer.client.post("/x", content=b"x")
        failures = [one.failures for one in balancer.destinations]

    assert (response.status_code, failures) == (200, [1, 0])


@pytest.mark.e2e
async def test_http2_destination_that_does_not_choose_h2_is_a_failure(
    certificates: tuple[str, str, str],
) -> None:
    """The error of the connection names ALPN."""
    cert, key, ca = certificates
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(cert, key)
    async with (
        ScriptedOrigin(Connection.peer_left, tls=server) as origin,
        gateway(origin.url, http_version="2", tls={"ca_file": ca}) as gate,
    ):
        reply = await fetch(gate.address, "GET", "/billing/")
        with pytest.raises(ProxyError, match="does not speak HTTP/2"):
            await gate.balancer.client.get("/")

    assert (reply.status, reply.json()["failure"]) == (502, "connect")


async def test_http2_destination_without_settings_times_out() -> None:
    """The connect timeout applies until the destination's settings arrive."""

    async def script(peer: Peer) -> None:
        await peer.left()

    async with (
        scripted(script, greet=False) as (url, _),
        transport_to(url, connect_timeout=0.05) as transport,
    ):
        with pytest.raises(UpstreamTimeout) as raised:
            await transport.start(asks(), b"", more=False)

    assert raised.value.failure is Failure.CONNECT_TIMEOUT


async def test_http2_destination_that_refuses_or_closes_is_a_failure() -> None:
    """Both are failures to connect."""

    async def script(peer: Peer) -> None:
        return

    async with transport_to(f"http://127.0.0.1:{dead_port()}") as transport:
        with pytest.raises(UpstreamConnectError):
            await transport.probe()
    async with scripted(script, greet=False) as (url, _), transport_to(url) as transport:
        with pytest.raises(UpstreamConnectError):
            await transport.start(asks(), b"", more=False)


async def test_http2_dial_without_waiting_callers_is_ended_by_aclose() -> None:
    """Cancelled callers leave the dial running, and ``aclose`` ends it."""
    with blackhole() as port:
        async with transport_to(f"http://127.0.0.1:{port}") as transport:
            waiting = asyncio.create_task(transport.start(asks(), b"", more=False))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait((waiting,))
        with pytest.raises(UpstreamConnectError, match="shut down"):
            await transport.start(asks(), b"", more=False)

    assert waiting.cancelled()


async def test_http2_over_a_unix_socket(tmp_path: Path) -> None:
    """Prior knowledge works on any socket."""
    path = str(tmp_path / "h2.sock")
    async with scripted(respond_to_all, path=path) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(), b"", more=False)
        await exchange.head()
        body = await exchange.read()
        exchange.close()

    assert body == b"ok"


async def test_http2_full_connection_makes_another_one() -> None:
    """Requests over the destination's limit of streams get a new connection."""
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        await release.wait()
        peer.respond(stream)
        peer.send(stream, b"ok", end=True)
        await peer.left()

    settings: dict[SettingCodes, int] = {SettingCodes.MAX_CONCURRENT_STREAMS: 1}
    async with (
        scripted(script, settings=settings) as (url, peers),
        transport_to(url) as transport,
    ):
        started = await asyncio.gather(
            *(transport.start(asks(), b"", more=False) for _ in range(3))
        )
        full = transport.reuse(asks(), b"", more=False)
        release.set()
        for exchange in started:
            await exchange.head()
            await exchange.read()
            exchange.close()

    assert (full, len(peers)) == (None, 3)


@pytest.mark.parametrize("goaway", [False, True])
async def test_http2_destination_that_takes_no_stream_is_a_failure(goaway: bool) -> None:
    """MAX_CONCURRENT_STREAMS of 0, or GOAWAY at once; each connection is dialled once."""

    async def script(peer: Peer) -> None:
        if goaway:
            peer.h2.close_connection()
            peer.flush()
        await peer.left()

    settings: dict[SettingCodes, int] = {} if goaway else {SettingCodes.MAX_CONCURRENT_STREAMS: 0}
    async with (
        scripted(script, settings=settings) as (url, peers),
        transport_to(url) as transport,
    ):
        with pytest.raises(UpstreamConnectError, match="takes no stream"):
            await transport.start(asks(), b"", more=False)

    assert len(peers) == 1


async def test_http2_idle_connection_is_closed_in_time() -> None:
    """Not while it is used, and not early."""
    async with (
        scripted(respond_to_all) as (url, peers),
        transport_to(url, idle_seconds=0.05) as transport,
    ):
        for _ in range(2):
            exchange = transport.reuse(asks(), b"", more=False) or await transport.start(
                asks(), b"", more=False
            )
            await exchange.head()
            await exchange.read()
            exchange.close()
        used = transport.connections
        unsafe = transport.reuse(asks(b"POST", within=-1.0), b"", more=False)
        await until(lambda: not transport.connections)

    assert (used, unsafe, len(peers)) == (1, None, 1)


@pytest.mark.e2e
async def test_http2_without_the_extra_is_a_fault_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The app fails at start, not at the first request."""
    for name in list(sys.modules):
        if name.startswith("fastapi_proxy_di.transport.http2."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "h2.config", None)
    app = FastAPI()
    app.include_router(proxy_router(billing("http://127.0.0.1:1", http_version="2")))
    with pytest.raises(StartupFailed, match=r"fastapi-proxy-di\[http2\]") as raised:
        await run_app(app).__aenter__()

    assert isinstance(raised.value.__cause__, SettingsError)
    assert "http_version" in json.dumps(str(raised.value))
