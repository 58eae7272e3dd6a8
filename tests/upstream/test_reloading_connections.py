"""Connections, tunnels and clients through a reload: TLS, the version of HTTP, timeouts."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.gateways import billing, gateway, until
from tests.support.held import Holding, get, holding, statuses
from tests.support.origins import ScriptedOrigin
from tests.support.websocket_client import open_websocket
from tests.support.websocket_origin import frames_from, until_left

pytestmark = pytest.mark.e2e


async def test_client_of_the_app_has_the_new_timeouts() -> None:
    """An SDK keeps its client; calls go by the new settings."""
    async with holding() as held:
        client = held.gate.balancer.client
        await held.reload(timeouts={"activity": 7}, request_headers={"x-new": "1"})
        response = await client.get("/x")

        assert client is held.gate.balancer.client
        assert client.timeout.read == 7
        assert response.status_code == 200
        assert (b"x-new", b"1") in held.origin.requests[-1].headers


async def test_tunnel_outlives_a_reload_and_is_counted() -> None:
    """A tunnel of the old rules is closed by a drain of the new ones."""
    async with (
        frames_from(until_left) as origin,
        gateway(origin.url) as gate,
        open_websocket(gate.address, "/billing/ws") as client,
    ):
        balancer = gate.balancer
        await until(lambda: balancer.status().tunnels)
        await balancer.reload(billing(origin.url, websocket={"ping_interval": 5}))
        tunnels = balancer.status().tunnels
        await balancer.drain(origin.url, timeout=0)
        closed = await client.ended()

        assert (tunnels, closed.code) == (1, 1001)


class Pki:
    """A certificate authority whose file is renewed.

    Args:
        folder: Where its file is.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "ca.pem"
        self.authority = trustme.CA()
        self.renew()

    def renew(self) -> ssl.SSLContext:
        """Write a new authority into the file, and give the context of a server."""
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(self.file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("127.0.0.1").configure_cert(context)
        return context


@pytest.mark.parametrize("version", ["1.1"])
async def test_certificates_are_read_again(tmp_path: Path, version: str) -> None:
    """New connections trust the new root; the idle one is closed, the one in use ends."""
    pki = Pki(tmp_path)
    script = Holding()
    old = pki.renew()
    async with ScriptedOrigin(script, tls=old) as origin:
        given: dict[str, Any] = {"tls": {"ca_file": str(pki.file)}, "http_version": version}
        async with gateway(origin.url, **given) as gate:
            held = asyncio.create_task(get(gate, "held"))
            await until(lambda: origin.requests)
            idle = await get(gate)
            await until(
                lambda: (
                    gate.balancer._running.transports.connections(gate.balancer.destinations[0])
                    == (1, 1)
                )
            )
            context = pki.renew()
            refused_at = origin.connections
            changed = await gate.balancer.reload(billing(origin.url, **given))
            in_use = origin.open_connections
            refused = await get(gate)
            script.go.set()
            ended = await held
            await until(lambda: not gate.balancer._running.transports._retired)
            await until(lambda: not origin.open_connections)

            assert (idle.status, changed, refused_at) == (200, ("tls",), 2)
            assert in_use <= 2
            assert (refused.status, ended.status, ended.body) == (502, 200, b"1")
        async with (
            ScriptedOrigin(Holding(), tls=context) as renewed,
            gateway(renewed.url, **given) as gate,
        ):
            assert await statuses(gate, 1) == [200]


async def test_http_version_changes_for_new_requests() -> None:
    """The transport is another one; a request under way ends on the old one."""
    async with holding() as held:
        await held.hold(1)
        before = held.gate.balancer._running.transports.all()[0]
        await held.reload(http_version="2")
        after = held.gate.balancer._running.transports.all()[0]
        held.release()

        assert (await held.tasks[0]).status == 200
        assert type(before).__name__ != type(after).__name__
        await until(lambda: not held.gate.balancer._running.transports._retired)
