"""Look-ups at real servers: dnsmasq and bind9."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastapi_proxy_di.discovery.found import Found, LookupFailed, Service
from fastapi_proxy_di.discovery.names import Names
from tests.support.dns_servers import bind, dnsmasq

pytestmark = pytest.mark.e2e


async def test_dnsmasq_gives_addresses(tmp_path: Path) -> None:
    """A and AAAA, others after its file has changed, none for a name that is gone."""
    async with dnsmasq(tmp_path, "10.0.0.1 api.internal\nfd00::1 api.internal\n") as server:
        names = Names((server.nameserver,), family="both")
        first = await names.addresses("api.internal")
        await server.write("10.0.0.2 api.internal\n")
        then = await names.addresses("api.internal")
        await server.write("10.0.0.3 other.internal\n")
        gone = await names.addresses("api.internal.")

    assert first == Found(("10.0.0.1", "fd00::1"), 0.0)
    assert then == Found(("10.0.0.2",), 0.0)
    assert gone.records == ()


async def test_dnsmasq_gives_ipv6_alone_and_a_thousand_addresses(tmp_path: Path) -> None:
    """The latter by TCP."""
    many = "".join(f"10.0.{one >> 8}.{one & 255} many.internal\n" for one in range(1000))
    async with dnsmasq(tmp_path, f"fd00::1 six.internal\n{many}", "--max-ttl=0") as server:
        names = Names((server.nameserver,), family="both")
        six = await names.addresses("six.internal")
        thousand = await names.addresses("many.internal")

    assert six.records == ("fd00::1",)
    assert len(thousand.records) == 1000


async def test_dnsmasq_gives_services(tmp_path: Path) -> None:
    """With the addresses of their targets."""
    options = ("--srv-host=_api._tcp.internal,a.internal,8080,1,50",)
    async with dnsmasq(tmp_path, "10.0.0.1 a.internal\n", *options) as server:
        found = await Names((server.nameserver,), "ipv4").service_addresses("_api._tcp.internal")

    assert found.records == ((Service(1, 50, 8080, "a.internal."), "10.0.0.1"),)


async def test_dnsmasq_without_servers_of_its_own_refuses(tmp_path: Path) -> None:
    """A name that it is not responsible for."""
    async with dnsmasq(tmp_path) as server:
        with pytest.raises(LookupFailed, match="says REFUSED"):
            await Names((server.nameserver,)).addresses("api.elsewhere.")


async def test_stopped_server_fails_at_once(tmp_path: Path) -> None:
    """Its closed port refuses the packets; the next server is asked where there is one."""
    async with dnsmasq(tmp_path, "10.0.0.1 api.internal\n") as first:
        await first.stop()
        async with dnsmasq(tmp_path, "10.0.0.1 api.internal\n") as second:
            both = (first.nameserver, second.nameserver)
            found = await Names(both, "ipv4", timeout=60.0).addresses("api.internal")
        with pytest.raises(LookupFailed, match="Connection refused"):
            await Names(both, "ipv4", timeout=60.0).addresses("api.internal.")

    assert found.records == ("10.0.0.1",)


async def test_bind_gives_addresses(tmp_path: Path) -> None:
    """Aliases with the smallest TTL of the chain, IPv6 alone, no records, no name."""
    records = "api 30 A 10.0.0.1\napi 20 AAAA fd00::1\nalias 5 CNAME api\nsix AAAA fd00::6"
    async with bind(tmp_path, records) as server:
        names = Names((server.nameserver,), family="both")
        found = {name: await names.addresses(f"{name}.example") for name in ("api", "alias", "six")}
        no_records = await Names((server.nameserver,), "ipv4").addresses("six.example.")
        no_name = await names.addresses("gone.example.")
        await server.stop()
        with pytest.raises(LookupFailed, match="Connection refused"):
            await names.addresses("api.example.")

    assert found == {
        "api": Found(("10.0.0.1", "fd00::1"), 20.0),
        "alias": Found(("10.0.0.1", "fd00::1"), 5.0),
        "six": Found(("fd00::6",), 60.0),
    }
    assert no_records == no_name == Found((), 7.0)


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


async def test_bind_gives_a_thousand_addresses(tmp_path: Path) -> None:
    """By TCP: the packet is truncated."""
    records = "\n".join(f"many A 10.0.{one >> 8}.{one & 255}" for one in range(1000))
    async with bind(tmp_path, records, "max-records-per-type 0;") as server:
        found = await Names((server.nameserver,), "ipv4").addresses("many.example.")

    assert len(found.records) == 1000


async def test_bind_with_a_broken_zone_fails(tmp_path: Path) -> None:
    """SERVFAIL; for a name of another zone REFUSED."""
    async with bind(tmp_path, "api A not-an-address") as server:
        names = Names((server.nameserver,))
        with pytest.raises(LookupFailed, match="says SERVFAIL"):
            await names.addresses("api.example.")
        with pytest.raises(LookupFailed, match="says REFUSED"):
            await names.addresses("api.elsewhere.")


async def test_bind_with_aliases_in_a_loop_gives_no_addresses(tmp_path: Path) -> None:
    """The look-up ends. Versions of bind9 differ: the loop is their response, or SERVFAIL."""
    async with bind(tmp_path, "a CNAME b\nb CNAME a") as server:
        with pytest.raises(LookupFailed, match=r"ChainTooLong|SERVFAIL"):
            await Names((server.nameserver,)).addresses("a.example.")
