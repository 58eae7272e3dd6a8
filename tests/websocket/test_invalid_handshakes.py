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
