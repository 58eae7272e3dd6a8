"""The upstream gets the client's handshake, without the headers of the client's hop."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.support.origins import Received
from tests.support.websocket_client import Headers, open_websocket
from tests.support.websocket_origin import frames_from, until_left
from tests.websocket.gateways import every_server, every_uvicorn, tunnels

pytestmark = pytest.mark.e2e


async def _arriving(
    headers: Headers = (),
    target: str = "/billing/live",
    *,
    offer: tuple[str, ...] = (),
    connection: bytes = b"Upgrade",
    server: str | None = None,
    **options: Any,
) -> Received:
    """Open one tunnel, and give the handshake that the upstream got."""
    async with (
        frames_from(until_left) as origin,
        tunnels(origin.url, server=server, **options) as gateway,
        open_websocket(gateway.address, target, headers, subprotocols=offer, connection=connection),
    ):
        return origin.request


@every_server
async def test_handshake_has_the_clients_headers(server: str) -> None:
    """Origin, cookies, authorization and custom headers, repeats in order."""
    given = [
        (b"origin", b"https://app.example"),
        (b"cookie", b"a=1; b=2"),
        (b"authorization", b"Bearer s3cret"),
        (b"user-agent", b"tests/1"),
        (b"x-custom", b"one"),
        (b"x-other", b"between"),
        (b"x-custom", b"two, three"),
    ]
    if server != "websockets":  # uvicorn's deprecated implementation fails on it
        given.append((b"x-latin", b"gr\xfc\xdfe"))
    received = await _arriving(given, "/billing/a%2Fb/live?x=1&x=%20", server=server)

    names = {name for name, _ in given}
    assert [pair for pair in received.headers if pair[0] in names] == given
    assert (received.method, received.target) == (b"GET", b"/a%2Fb/live?x=1&x=%20")


@every_server
async def test_handshake_leaves_out_headers_of_the_clients_hop(server: str) -> None:
    """Hop-by-hop and nominated headers are dropped; the key is the gateway's."""
    received = await _arriving(
        [
            (b"Sec-WebSocket-Extensions", b"permessage-deflate; client_max_window_bits"),
            (b"Keep-Alive", b"timeout=5"),
            (b"Proxy-Authorization", b"Basic eA=="),
            (b"TE", b"gzip"),
            (b"X-Only-Here", b"1"),
        ],
        connection=b"keep-alive, Upgrade, X-Only-Here",
        server=server,
    )

    for name in (b"keep-alive", b"proxy-authorization", b"te", b"x-only-here"):
        assert name not in received.names
    assert b"sec-websocket-extensions" not in received.names
    assert received.one(b"connection") == b"Upgrade"
    assert received.one(b"upgrade") == b"websocket"
    assert received.one(b"sec-websocket-version") == b"13"
    key = received.one(b"sec-websocket-key")
    assert key is not None
    assert key != b"dGhlIHNhbXBsZSBub25jZQ=="
    assert len(base64.b64decode(key)) == 16
    assert received.one(b"host") != b"gateway.test"
    assert b"content-length" not in received.names


@every_server
async def test_handshake_has_forwarding_headers(server: str) -> None:
    """As for HTTP; the client's own are not trusted."""
    received = await _arriving(
        [
            (b"X-Forwarded-For", b"6.6.6.6"),
            (b"X-Forwarded-Proto", b"https"),
            (b"Forwarded", b"for=6.6.6.6"),
            (b"X-Real-IP", b"6.6.6.6"),
        ],
        server=server,
    )

    assert received.one(b"x-forwarded-for") == b"127.0.0.1"
    assert received.one(b"x-forwarded-proto") == b"http"
    assert received.one(b"x-forwarded-host") == b"gateway.test"
    assert received.one(b"x-forwarded-prefix") == b"/billing"
    assert received.one(b"via") == b"1.1 fastapi-proxy-di"
    assert not {b"forwarded", b"x-real-ip"} & set(received.names)


@every_uvicorn
async def test_handshake_forwards_wss_as_https(server: str) -> None:
    """``wss`` becomes https, and the address is that of uvicorn's trusted proxy."""
    received = await _arriving(
        [(b"X-Forwarded-For", b"192.0.2.7"), (b"X-Forwarded-Proto", b"https")],
        server=server,
        uvicorn={"proxy_headers": True, "forwarded_allow_ips": "127.0.0.1"},
    )

    assert received.all(b"x-forwarded-for") == [b"192.0.2.7"]
    assert received.all(b"x-forwarded-proto") == [b"https"]


async def test_handshake_appends_to_headers_of_a_trusted_proxy() -> None:
    """``append``, ``off`` and ``rfc7239`` work as for HTTP."""
    given = [(b"X-Forwarded-For", b"192.0.2.7"), (b"X-Forwarded-Proto", b"https")]
    trusted = {"mode": "append", "trusted_proxies": ["127.0.0.0/8"]}
    appended = await _arriving(given, forwarded=trusted)
    off = await _arriving(given, forwarded={"mode": "off", "via": False})
    standard = await _arriving(given, forwarded={"rfc7239": True})

    assert b",".join(appended.all(b"x-forwarded-for")) == b"192.0.2.7, 127.0.0.1"
    assert not {b"x-forwarded-for", b"x-forwarded-proto", b"via"} & set(off.names)
    forwarded = standard.one(b"forwarded")
    assert forwarded is not None
    assert forwarded.startswith(b"for=127.0.0.1;")
    assert b"proto=http" in forwarded


@every_server
async def test_handshake_has_the_offered_subprotocols(server: str) -> None:
    """All of them, in order of preference."""
    received = await _arriving(offer=("graphql-ws", "v2.chat", "v1.chat"), server=server)

    assert received.one(b"sec-websocket-protocol") == b"graphql-ws, v2.chat, v1.chat"


@every_server
async def test_handshake_without_an_offer_has_no_subprotocol_header(server: str) -> None:
    """An empty header would make servers refuse, or choose the empty name."""
    received = await _arriving(server=server)

    assert b"sec-websocket-protocol" not in received.names


async def test_handshake_offers_compression_if_it_is_set() -> None:
    """``compression`` is for the upstream's hop, whatever the client's hop has."""
    wanted = await _arriving(websocket={"compression": True})

    assert wanted.one(b"sec-websocket-extensions") == b"permessage-deflate; client_max_window_bits"


async def test_handshake_has_the_settings_headers() -> None:
    """``request_headers``, ``remove_request_headers`` and ``preserve_host`` apply here too."""
    received = await _arriving(
        [(b"x-secret", b"forged"), (b"x-internal", b"1")],
        request_headers={"x-secret": "s3cret"},
        remove_request_headers=["x-internal"],
        preserve_host=True,
    )

    assert received.one(b"x-secret") == b"s3cret"
    assert b"x-internal" not in received.names
    assert received.one(b"host") == b"gateway.test"
