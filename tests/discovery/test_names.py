"""Look-ups of addresses: records, TTLs, families, the search list and what failures do."""

from __future__ import annotations

from fastapi_proxy_di.discovery.found import Found
from fastapi_proxy_di.discovery.names import Names
from tests.support.dns_servers import reply, scripted_dns


async def test_addresses_are_sorted_and_distinct() -> None:
    """By number, not by text; the TTL is that of the records."""
    records = [f"api.internal. 30 IN A 10.0.0.{number}" for number in (10, 9, 10)]

    async with scripted_dns(lambda query, _: [reply(query, *records)]) as server:
        found = await Names((server.nameserver,), family="ipv4").addresses("api.internal")

    assert found == Found(("10.0.0.9", "10.0.0.10"), 30.0)
