"""The client gets the upstream's 101, or its refusal."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from contextlib import suppress

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.support.gateways import gateway_app
from tests.support.http_client import Ending, RawResponse, connect
from tests.support.origins import Connection, ScriptedOrigin, always, chunk, response_bytes
from tests.support.websocket_client import Closed, open_websocket, shake_hands
from tests.support.websocket_origin import FramePeer, accepting, frames_from, until_left
from tests.websocket.gateways import every_server, no_tunnel_left, serving, tunnels
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


@every_server
async def test_response_has_the_upstreams_headers(server: str) -> None:
    """Cookies and custom headers reach the client, repeats in order."""
    given = [
        (b"set-cookie", b"session=1; Path=/; HttpOnly"),
        (b"x-served-by", b"one"),
        (b"set-cookie", b"theme=dark"),
    ]
    async with (
        frames_from(until_left, given) as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):
        headers = [(name.lower(), value) for name, value in client.response.headers]

    assert [pair for pair in headers if pair[0] in (b"set-cookie", b"x-served-by")] == given


@every_server
async def test_response_leaves_out_headers_of_the_upstreams_hop(server: str) -> None:
    """The upstream's accept, framing and nominated headers are not forwarded."""
    given = [
        (b"keep-alive", b"timeout=5"),
        (b"connection", b"x-only-here"),
        (b"x-only-here", b"1"),
        (b"content-length", b"0"),
        (b"server", b"hidden/1"),
    ]
    async with (
        frames_from(until_left, given) as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):
        names = client.response.names
        server_field = client.response.all(b"server")

    assert names.count(b"sec-websocket-accept") == 1
    assert not {b"keep-alive", b"x-only-here", b"content-length"} & set(names)
    assert b"hidden/1" not in server_field


@every_server
async def test_response_has_the_subprotocol_that_the_upstream_chose(server: str) -> None:
    """It need not be the first one that was offered."""
    app = EchoApp(subprotocols=["v1.chat"])
    async with (
        echo_server(app) as upstream,
        tunnels(upstream.url, server=server) as gateway,
        open_websocket(gateway.address, subprotocols=["v2.chat", "v1.chat"]) as client,
    ):
        assert client.subprotocol == b"v1.chat"
        assert app.scope["subprotocols"] == ["v2.chat", "v1.chat"]


@every_server
@pytest.mark.parametrize("offer", [(), ("theirs",)])
async def test_response_without_a_choice_has_no_subprotocol_header(
    server: str, offer: Sequence[str]
) -> None:
    """The tunnel works without a subprotocol."""
    async with (
        echo_server(EchoApp()) as upstream,
        tunnels(upstream.url, server=server) as gateway,
        open_websocket(gateway.address, subprotocols=offer) as client,
    ):
        assert client.subprotocol is None
        await client.send("hello")
        assert await client.recv() == "hello"


async def test_response_has_the_settings_headers() -> None:
    """``response_headers`` and ``remove_response_headers`` apply here too."""
    async with (
        frames_from(until_left, [(b"x-internal", b"1"), (b"x-hop", b"theirs")]) as origin,
        tunnels(
            origin.url, response_headers={"x-hop": "ours"}, remove_response_headers=["x-internal"]
        ) as gateway,
        open_websocket(gateway.address) as client,
    ):
        assert client.response.all(b"x-hop") == [b"ours"]
        assert client.response.all(b"x-internal") == []


@every_server
async def test_messages_sent_with_the_101_are_not_lost(server: str) -> None:
    """An upstream may send a message in the packet of its 101."""
    async with (
        frames_from(until_left, leftover=b"\x81\x05first\x81\x06second") as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):
        assert [await client.recv(), await client.recv()] == ["first", "second"]


async def test_many_messages_with_the_101_are_accepted() -> None:
    """They do not count against the limit of the head."""
    message = b"\x82\x7e" + (10_000).to_bytes(2) + bytes(10_000)
    limits = {"max_response_header_bytes": 4096}
    async with (
        frames_from(until_left, leftover=50 * message) as origin,
        tunnels(origin.url, limits=limits) as gateway,
        open_websocket(gateway.address) as client,
    ):
        assert [await client.recv() for _ in range(50)] == [bytes(10_000)] * 50


async def _refused(reply: bytes, server: str | None = None) -> RawResponse:
    """Let the upstream respond to a handshake with these bytes; give the client's response."""

    async def script(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(reply)

    async with ScriptedOrigin(script) as origin, tunnels(origin.url, server=server) as gateway:
        async with connect(gateway.address) as client:
            refusal = await shake_hands(client, "/billing/live")
        await no_tunnel_left(gateway)
        return refusal


@every_server
@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 426, 429, 503])
async def test_refusal_reaches_the_client(server: str, status: int) -> None:
    """Status, headers and body of the upstream."""
    headers = [
        (b"content-type", b"application/json"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"www-authenticate", b'Bearer realm="x"'),
        (b"retry-after", b"7"),
    ]
    refusal = await _refused(response_bytes(status, b'{"why": "no"}', headers), server)

    assert (refusal.status, refusal.body) == (status, b'{"why": "no"}')
    got = [(name.lower(), value) for name, value in refusal.headers]
    assert [pair for pair in got if pair in headers] == headers


@every_server
async def test_refusal_of_any_shape_reaches_the_client(server: str) -> None:
    """Chunked, large and encoded refusals."""
    body = gzip.compress(bytes(range(256)) * 2000, mtime=0) + bytes(300_000)
    head = response_bytes(
        403, headers=[(b"transfer-encoding", b"chunked"), (b"content-encoding", b"gzip")],
        length=False,
    )  # fmt: skip
    refusal = await _refused(
        head + chunk(body[:70_000]) + chunk(body[70_000:]) + chunk(b""), server
    )

    assert refusal.status == 403
    # The deprecated one sends what it has at the first piece, and drops the rest.
    assert refusal.body == (body if server != "websockets" else body[: len(refusal.body)])
    assert refusal.one(b"content-encoding") == b"gzip"


@every_server
async def test_refusal_without_a_body_has_none(server: str) -> None:
    """The client gets a complete response."""
    refusal = await _refused(response_bytes(401), server)

    assert (refusal.status, refusal.body) == (401, b"")


@every_server
@pytest.mark.parametrize("chunked", [False, True])
async def test_refusal_that_breaks_off_counts_as_a_broken_response(
    server: str, chunked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is one line of ours, a failure of the destination, and no traceback of the server."""
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 9"
    half = chunk(b"half") if chunked else b"half"

    async def script(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 403 Forbidden\r\n%b\r\n\r\n%b" % (framing, half))

    async with ScriptedOrigin(script) as origin, tunnels(origin.url, server=server) as gateway:
        async with connect(gateway.address) as client:
            try:
                broken = (await shake_hands(client, "/billing/live")).ending is Ending.BROKEN
            except EOFError:  # closed before the head
                broken = True
        await no_tunnel_left(gateway)
        (destination,) = gateway.balancer.destinations
        counts = destination.failures, destination.completed

    (line,) = [one for one in caplog.messages if one.startswith("billing: ")]
    assert line.startswith(f"billing: the response of {origin.url} broke off: ")
    assert line.endswith("(response_body, 1 attempt)")
    assert counts == (1, 0)
    assert [one for one in caplog.records if one.exc_info] == []
    # The deprecated one sends what it has at the first piece as a whole response.
    assert broken or server == "websockets"


@every_server
async def test_refusal_that_stalls_ends_with_the_time_to_open(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No exchange stays open because a destination does not finish its refusal."""

    async def script(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nhalf")
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        tunnels(origin.url, server=server, websocket={"open_timeout": 0.5}) as gateway,
    ):
        async with connect(gateway.address) as client:
            with suppress(EOFError):  # closed before the head
                _ = await shake_hands(client, "/billing/live")
        await no_tunnel_left(gateway)

    end = "broke off: total timeout of 0.5 s ran out (total_timeout, 1 attempt)"
    lines = [one.endswith(end) for one in caplog.messages if one.startswith("billing: ")]
    # Under the deprecated one the client has a whole response, and leaves first.
    assert lines == [True] or (server == "websockets" and not lines)


async def test_refusal_is_403_without_denial_responses() -> None:
    """A server without the ASGI extension can only send 403."""

    class WithoutDenial:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope.pop("extensions", None)
            await self.app(scope, receive, send)

    async with ScriptedOrigin(always(response_bytes(418, b"teapot"))) as origin:
        app = gateway_app(origin.url)
        app.add_middleware(WithoutDenial)
        async with serving(app) as gateway, connect(gateway.address) as client:
            refusal = await shake_hands(client, "/billing/live")

    assert refusal.status == 403
    assert b"teapot" not in refusal.body


@every_server
@pytest.mark.parametrize(
    "headers",
    [
        [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")],
        [(b"Sec-WebSocket-Accept", b"AAAAAAAAAAAAAAAAAAAAAAAAAAA=")],
    ],
)
async def test_response_that_opens_no_websocket_is_502(
    server: str, headers: list[tuple[bytes, bytes]]
) -> None:
    """A 101 with a wrong accept, or without its headers, is a bad gateway."""
    refusal = await _refused(response_bytes(101, headers=headers, length=False), server)

    assert refusal.status == 502
    assert b"127.0.0.1" not in refusal.body


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"Sec-WebSocket-Protocol", b"never.offered"),
        (b"Sec-WebSocket-Extensions", b"permessage-deflate"),
    ],
)
async def test_choice_that_was_not_offered_is_502(name: bytes, value: bytes) -> None:
    """RFC 6455 section 4.1: such a handshake has failed."""
    async with (
        frames_from(until_left, [(name, value)]) as origin,
        tunnels(origin.url) as gateway,
    ):
        async with connect(gateway.address) as client:
            refusal = await shake_hands(client, "/billing/live", subprotocols=["theirs"])
        await no_tunnel_left(gateway)

    assert refusal.status == 502


async def test_client_is_accepted_after_the_upstream() -> None:
    """The client gets no 101 before the upstream has sent one."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def script(connection: Connection) -> None:
        head = await connection.read_head()
        asked.set()
        await go.wait()
        await connection.send(accepting(head))
        await until_left(FramePeer(connection.reader, connection.writer))

    async with (
        ScriptedOrigin(script) as origin,
        tunnels(origin.url) as gateway,
        connect(gateway.address) as client,
    ):
        shaking = asyncio.create_task(shake_hands(client, "/billing/live"))
        await asked.wait()
        early, _ = await asyncio.wait({shaking}, timeout=0.05)
        go.set()
        accepted = await shaking

    assert not early
    assert accepted.status == 101


async def test_origin_is_checked_by_the_upstream() -> None:
    """The gateway forwards Origin, and the upstream may refuse it."""

    async def script(connection: Connection) -> None:
        head = await connection.read_head()
        if head.one(b"origin") == b"https://good.example":
            await connection.send(accepting(head))
            await connection.send(b"\x88\x02\x03\xe8")
        else:
            await connection.send(response_bytes(403, b"bad origin"))

    async with ScriptedOrigin(script) as origin, tunnels(origin.url) as gateway:
        good = [(b"origin", b"https://good.example")]
        async with open_websocket(gateway.address, headers=good) as client:
            assert await client.recv() == Closed(1000)
        async with connect(gateway.address) as refused:
            evil = [(b"origin", b"https://evil.example")]
            refusal = await shake_hands(refused, "/billing/live", evil)

    assert (refusal.status, refusal.body) == (403, b"bad origin")
