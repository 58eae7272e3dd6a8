"""TLS with dynamic destinations: each is verified by its own host, on real TLS servers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trustme

from fastapi_proxy_di.upstream.composition import compose
from tests.support.gateways import Gateway, billing
from tests.support.given import given_app, to
from tests.support.http_client import RawResponse, fetch
from tests.support.name_servers import Names
from tests.support.origins import ScriptedOrigin
from tests.support.tls_servers import TlsServers
from tests.websocket.gateways import serving

pytestmark = pytest.mark.e2e


async def test_address_is_verified_by_its_own_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``tls.server_name`` is for the pool: an address sends and checks its own name."""
    servers, names = TlsServers(tmp_path), Names(monkeypatch)
    for name in ("alice.notebooks.test", "bob.notebooks.test"):
        names.resolve(name, "127.0.0.1")
    async with (
        ScriptedOrigin(tls=servers.of("pool.internal")) as pool,
        ScriptedOrigin(tls=servers.of("alice.notebooks.test")) as alice,
        ScriptedOrigin(tls=servers.of("127.0.0.1")) as by_number,
    ):
        app = given_app(
            pool.url,
            origins=["https://*.notebooks.test:*"],
            tls={"ca_file": servers.ca_file, "server_name": "pool.internal"},
        )
        async with serving(app) as gateway:
            replies = [
                await fetch(gateway.address, target="/billing/x"),
                await ask(gateway, f"https://alice.notebooks.test:{alice.port}"),
                await ask(gateway, by_number.url),
            ]
            sent = list(servers.sent)
            # The certificate of the pool is none of theirs.
            others = [
                await ask(gateway, f"https://bob.notebooks.test:{alice.port}"),
                await ask(gateway, f"https://bob.notebooks.test:{pool.port}"),
            ]

    assert [reply.status for reply in replies] == [200, 200, 200]
    assert sent == ["pool.internal", "alice.notebooks.test", None]
    assert [json.loads(reply.body)["failure"] for reply in others] == ["tls"] * 2
    assert "pool.internal" not in servers.sent[3:]


async def ask(gateway: Gateway, address: str) -> RawResponse:
    """Send a GET to an address through the gateway."""
    return await fetch(gateway.address, target="/billing/x", headers=to(address))


async def test_connection_by_former_certificates_serves_no_later_request(tmp_path: Path) -> None:
    """A reload reads the file anew; as long as it is the same, connections stay."""
    servers = TlsServers(tmp_path)
    async with ScriptedOrigin(tls=servers.of("127.0.0.1")) as origin:
        app = given_app(tls={"ca_file": servers.ca_file})
        async with serving(app) as gateway:
            statuses = []
            for _ in range(2):
                statuses.append((await ask(gateway, origin.url)).status)
                await gateway.balancer.reload(gateway.balancer.settings)
            connections = origin.connections
            trustme.CA().cert_pem.write_to_path(servers.ca_file)
            await gateway.balancer.reload(gateway.balancer.settings)
            statuses.append((await ask(gateway, origin.url)).status)

    assert statuses == [200, 200, 502]
    assert connections == 1


async def test_context_of_tls_is_that_of_the_pool(tmp_path: Path) -> None:
    """It is not made twice, because reading the roots takes long."""
    settings = billing(
        "https://a",
        allowed_destinations={"networks": ["10.0.0.0/8"]},
        tls={"ca_file": TlsServers(tmp_path).ca_file, "server_name": "pool.internal"},
    )
    running = compose(settings)
    factory = running.rules.guarded_factory
    assert factory is not None
    assert factory._context("http/1.1") is running.transports.factory._context("http/1.1")
    await running.aclose()
