"""Destinations by DNS: dnsmasq, and a server that says what a test wants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import dns.message
import dns.rcode
import dns.rrset
import pytest

from fastapi_proxy_di.discovery.protocol import DiscoveryError, Search
from fastapi_proxy_di.discovery.records import dns_source
from fastapi_proxy_di.settings import DestinationSettings, DiscoverySettings
from tests.discovery.samples import at
from tests.support.dns_servers import dnsmasq, reply, scripted_dns


async def looked_up(
    url: str, nameserver: str, looks: int = 1
) -> list[Sequence[DestinationSettings]]:
    """Give the lists of the first look-ups."""
    settings = DiscoverySettings(nameservers=(nameserver,), refresh=0.001, family="both")
    source: Any = dns_source(Search(at(url), settings, 30.0, Random(1)))
    try:
        return [await anext(source) for _ in range(looks)]
    finally:
        await source.aclose()


@pytest.mark.e2e
async def test_each_address_is_a_destination(tmp_path: Path) -> None:
    """In the order of the addresses; Host and TLS have the name that was looked up."""
    lines = "10.0.0.10 api.internal\n10.0.0.9 api.internal\nfd00::1 api.internal\n"
    async with dnsmasq(tmp_path, lines) as server:
        (plain,) = await looked_up("dns+http://api.internal:8080/base", server.nameserver)
        (secure,) = await looked_up("dns+https://api.internal", server.nameserver)

    assert [one.url for one in plain] == [
        "http://10.0.0.9:8080/base",
        "http://10.0.0.10:8080/base",
        "http://[fd00::1]:8080/base",
    ]
    assert {one.host for one in plain} == {"api.internal:8080"}
    assert plain[0].address.server_name == "api.internal"
    assert (secure[0].url, secure[0].host) == ("https://10.0.0.9", "api.internal")


@pytest.mark.e2e
async def test_services_have_tiers_weights_and_ports(tmp_path: Path) -> None:
    """Priorities are tiers from 0 on; several addresses of a target share its weight."""
    async with dnsmasq(
        tmp_path,
        "10.0.0.1 a.internal\n10.0.0.2 a.internal\n10.0.0.3 b.internal\n",
        "--srv-host=_api._tcp.internal,a.internal,8001,10,30",
        "--srv-host=_api._tcp.internal,b.internal,8002,20,0",
    ) as server:
        (found,) = await looked_up("srv+http://_api._tcp.internal/base", server.nameserver)

    assert sorted((one.url, one.host, one.tier, one.weight) for one in found) == [
        ("http://10.0.0.1:8001/base", "a.internal:8001", 0, 15),
        ("http://10.0.0.2:8001/base", "a.internal:8001", 0, 15),
        ("http://10.0.0.3:8002/base", "b.internal:8002", 1, 1),
    ]


THOUSAND = [f"10.0.{n // 250}.{n % 250}" for n in range(1000)]
RECORDS = dns.rrset.from_text_list("api.internal.", 0, "IN", "A", THOUSAND)


def _thousand(query: dns.message.Message, by_tcp: bool) -> list[bytes]:
    response = reply(query, truncated=not by_tcp)
    if by_tcp and query.question[0].rdtype.name == "A":
        response.answer.append(RECORDS)
    return [response.to_wire(max_size=65535)]


async def test_a_thousand_addresses_are_made_once() -> None:
    """The next look-up gives the same objects, which costs no validation."""
    async with scripted_dns(_thousand) as server:
        first, second = await looked_up("dns+http://api.internal", server.nameserver, 2)

    assert len(first) == 1000
    assert all(one is other for one, other in zip(first, second, strict=True))


async def test_name_that_does_not_exist_is_an_empty_list() -> None:
    """What that means is a setting."""
    async with scripted_dns(lambda query, _: [reply(query, rcode=dns.rcode.NXDOMAIN)]) as server:
        assert await looked_up("dns+http://api.internal.", server.nameserver) == [[]]
        assert await looked_up("srv+http://_a._tcp.internal.", server.nameserver) == [[]]


async def test_failed_look_up_is_a_failure() -> None:
    """With what the server did."""
    async with scripted_dns(lambda query, _: [reply(query, rcode=dns.rcode.SERVFAIL)]) as server:
        with pytest.raises(
            DiscoveryError, match=rf"api\.internal\.: {server.nameserver} says SERVFAIL"
        ):
            await looked_up("dns+http://api.internal.", server.nameserver)
