"""The limit of messages that holds without any setting."""

from __future__ import annotations

import pytest

from tests.support.websocket_client import Closed, open_websocket
from tests.support.websocket_origin import FramePeer, frames_from, until_left
from tests.websocket.gateways import tunnels

pytestmark = pytest.mark.e2e


async def test_message_above_16_mib_closes_1009_by_default() -> None:
    """An upstream cannot fill the memory of the gateway; the payload is not even read."""

    async def script(peer: FramePeer) -> None:
        peer.writer.write(b"\x82\x7f" + (2**24 + 1).to_bytes(8))
        await until_left(peer)

    async with (
        frames_from(script) as origin,
        tunnels(origin.url) as gateway,
        open_websocket(gateway.address) as client,
    ):
        assert await client.ended() == Closed(1009, "message too big")


async def test_client_s_message_above_16_mib_closes_1009_by_default() -> None:
    """Also where the server's own limit is higher."""
    async with (
        frames_from(until_left) as origin,
        tunnels(origin.url, uvicorn={"ws_max_size": 2**27}) as gateway,
        open_websocket(gateway.address) as client,
    ):
        await client.send(bytes(2**24 + 1))
        assert await client.ended() == Closed(1009, "message too big")
