"""Look-ups at real servers: dnsmasq and bind9."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastapi_proxy_di.discovery.found import Found, Service
from fastapi_proxy_di.discovery.names import Names
from tests.support.dns_servers import bind, dnsmasq

pytestmark = pytest.mark.e2e


async def test_dnsmasq_gives_addresses(tmp_path: Path) -> None:
    """A and AAAA, and others after its file has changed."""
    async with dnsmasq(tmp_path, "10.0.0.1 api.internal\nfd00::1 api.internal\n") as server:
        names = Names((server.nameserver,), family="both")
        first = await names.addresses("api.internal")
        await server.write("10.0.0.2 api.internal\n")
        then = await names.addresses("api.internal")

    assert first == Found(("10.0.0.1", "fd00::1"), 0.0)
    assert then == Found(("10.0.0.2",), 0.0)


async def test_bind_gives_services(tmp_path: Path) -> None:
    """Priorities and weights, and others after the zone has changed."""
    records = "_api._tcp 20 SRV 10 5 8080 a\n_api._tcp 20 SRV 0 1 80 B.example."
    async with bind(tmp_path, records) as server:
        names = Names((server.nameserver,))
        first = await names.services("_api._tcp.example")
        await server.write("_api._tcp 0 SRV 0 0 81 c")
        then = await names.services("_api._tcp.example")

    assert first.records == (Service(0, 1, 80, "b.example."), Service(10, 5, 8080, "a.example."))
    assert first.ttl == 20.0
    assert then == Found((Service(0, 0, 81, "c.example."),), 0.0)
