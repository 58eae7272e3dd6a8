"""Handshakes that are refused because of what the client sent; no destination sees them."""

from __future__ import annotations

import pytest

from tests.support.http_client import connect
from tests.support.origins import ScriptedOrigin
from tests.support.websocket_client import shake_hands
from tests.websocket.gateways import every_server, tunnels

pytestmark = pytest.mark.e2e


@every_server
@pytest.mark.parametrize("target", ["/billing/x/../live", "/billing/x/%2e%2e/live"])
async def test_handshake_with_dot_segments_is_refused(server: str, target: str) -> None:
    """As for HTTP: RFC 3986 section 3.3."""
    async with (
        ScriptedOrigin() as origin,
        tunnels(origin.url, server=server) as gateway,
        connect(gateway.address) as client,
    ):
        response = await shake_hands(client, target)

    assert response.status == 400
    assert origin.connections == 0


@every_server
@pytest.mark.parametrize("hosts", [b"", b"Host: a.test\r\nHost: b.test\r\n", b"Host: a.test/x\r\n"])
async def test_handshake_without_one_valid_host_is_refused(server: str, hosts: bytes) -> None:
    """RFC 9112 section 3.2; by the server or by us."""
    handshake = (
        b"GET /billing/live HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    )
    async with (
        ScriptedOrigin() as origin,
        tunnels(origin.url, server=server) as gateway,
        connect(gateway.address) as client,
    ):
        await client.send(handshake + hosts + b"\r\n")
        response = await client.read_response()

    assert response.status == 400
    assert origin.connections == 0
