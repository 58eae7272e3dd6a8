"""What an address that a name gives gets: the name in TLS and ``Host``, and its probe first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.discovery.live import PROBE, Load, known, lines, live, origin
from tests.support.dns_servers import dnsmasq
from tests.support.gateways import gateway, until
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.tls_servers import TlsServers

pytestmark = pytest.mark.e2e


async def test_name_is_sent_and_verified_by_tls(tmp_path: Path) -> None:
    """Also in ``Host`` and by probes; the certificate of another name is refused."""
    servers = TlsServers(tmp_path)
    hosts = "127.0.0.1 api.internal\n127.0.0.1 other.internal\n"
    async with (
        ScriptedOrigin(tls=servers.of("api.internal")) as server,
        dnsmasq(tmp_path, hosts) as names,
    ):
        settings: dict[str, Any] = {
            "tls": {"ca_file": servers.ca_file},
            "health": {"path": PROBE},
            "discovery": {"nameservers": [names.nameserver], "family": "ipv4"},
        }
        replies, urls = [], set[str]()
        for name in ("api.internal", "other.internal"):
            async with gateway(f"dns+https://{name}:{server.port}", **settings) as gate:
                replies.append(await fetch(gate.address, target="/billing/x"))
                urls |= {one.url for one in gate.balancer.destinations}

    assert urls == {server.url}
    assert replies[0].status == 200
    assert json.loads(replies[1].body)["failure"] == "tls"
    assert set(servers.sent) == {"api.internal", "other.internal"}
    assert {(one.target, one.one(b"host")) for one in server.requests} == {
        (target.encode(), f"api.internal:{server.port}".encode()) for target in (PROBE, "/x")
    }


async def test_newcomer_gets_its_first_probe_before_its_first_request(tmp_path: Path) -> None:
    """A name gains addresses under load: no request goes there until the probe has ended."""
    async with (
        origin() as server,
        dnsmasq(tmp_path, lines(1)) as names,
        live(
            server.port, names.nameserver, health={"path": PROBE, "interval": 60, "timeout": 50}
        ) as gate,
    ):
        load = Load(gate)
        await load.more(20)
        server.healthy.clear()
        await names.write(lines(1, 2, 3))
        await until(lambda: len(server.probed) == 3)
        assert known(gate) == 3
        await load.more(40)
        before = set(server.served)
        server.healthy.set()
        await until(lambda: len(server.served) == 3)
        await load.stop()

    assert before == {"127.0.0.1"}
    assert {status for _, status in load.statuses} == {200}
