"""Look-ups of names: families, the machine's files, targets of services."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from fastapi_proxy_di.discovery.found import Found, LookupFailed, Service
from fastapi_proxy_di.discovery.names import HOSTS_SECONDS, Names
from tests.support.dns_servers import known, scripted_dns
from tests.support.gateways import until
from tests.support.servers import dead_port

_NOBODY = f"127.0.0.1:{dead_port()}"
_PAIR = ("api.internal. 30 IN A 10.0.0.1", "api.internal. 20 IN AAAA fd00::1")


def write(path: Path, text: str) -> None:
    """Replace the text of a file."""
    path.write_text(text)


@pytest.fixture
def resolv_conf(tmp_path: Path) -> Path:
    """A file with the search list ``a b.c`` and ndots 1."""
    path = tmp_path / "resolv.conf"
    path.write_text("search a b.c\n")
    return path


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """A file with addresses of ``api.internal``."""
    path = tmp_path / "hosts"
    path.write_text("10.0.0.7 api.internal\nfd00::7 api.internal\nnothing api.internal\n")
    return path


async def test_addresses_are_sorted_and_distinct() -> None:
    """By number, not by text, IPv4 first; the TTL is the smallest of both families."""
    records = [f"api.internal. 30 IN A 10.0.0.{number}" for number in (10, 9, 10)]

    async with scripted_dns(known(*records, _PAIR[1])) as server:
        found = await Names((server.nameserver,), family="both").addresses("api.internal")

    assert found == Found(("10.0.0.9", "10.0.0.10", "fd00::1"), 20.0)


@pytest.mark.parametrize(
    ("family", "kinds", "expected"),
    [
        ("ipv4", {"A"}, Found(("10.0.0.1",), 30.0)),
        ("ipv6", {"AAAA"}, Found(("fd00::1",), 20.0)),
        ("both", {"A", "AAAA"}, Found(("10.0.0.1", "fd00::1"), 20.0)),
    ],
)
async def test_family_decides_what_is_asked(
    family: str, kinds: set[str], expected: Found[str]
) -> None:
    """Records of the other family are not looked up."""
    async with scripted_dns(known(*_PAIR)) as server:
        names = Names((server.nameserver,), family=family)  # type: ignore[arg-type]
        found = await names.addresses("api.internal")

    assert found == expected
    assert {kind for _, kind in server.asked} == kinds


@pytest.mark.parametrize("versions", [(4,), (6,)])
async def test_auto_asks_for_what_the_machine_has_a_route_to(
    monkeypatch: pytest.MonkeyPatch, versions: tuple[int, ...]
) -> None:
    """The routes are looked at for each look-up: they may change."""
    monkeypatch.setattr(
        "fastapi_proxy_di.discovery.families.has_route", lambda version: version in versions
    )
    async with scripted_dns(known(*_PAIR)) as server:
        found = await Names((server.nameserver,)).addresses("api.internal")

    assert found.records == (("10.0.0.1",) if versions == (4,) else ("fd00::1",))


async def test_name_with_one_family_is_found() -> None:
    """No records of the other one is no failure, and its TTL does not count."""
    async with scripted_dns(known(_PAIR[1])) as server:
        found = await Names((server.nameserver,), family="both").addresses("api.internal")

    assert found == Found(("fd00::1",), 20.0)


async def test_failure_of_one_family_is_a_failure() -> None:
    """The destinations of that family would be gone otherwise; the text names the setting."""
    failing = {"api.internal. AAAA": dns.rcode.SERVFAIL}
    async with scripted_dns(known(_PAIR[0], failing=failing)) as server:
        names = Names((server.nameserver,), family="both")
        with pytest.raises(LookupFailed) as failed:
            await names.addresses("api.internal")

    assert str(failed.value) == (
        f"cannot look up AAAA records of api.internal.: {server.nameserver} says SERVFAIL; there"
        " are addresses of the other family: if that server never gives these records, set"
        " discovery.family to ipv4 or ipv6"
    )


async def test_failure_of_one_family_beside_no_records_is_a_failure(resolv_conf: Path) -> None:
    """Without the advice."""
    failing = {"x. A": dns.rcode.REFUSED}
    async with scripted_dns(known("x. 1 IN TXT a", failing=failing)) as server:
        with pytest.raises(LookupFailed, match=r"A records of x\.: \S+ says REFUSED$"):
            await Names((server.nameserver,), family="both").addresses("x.")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("Api.INTERNAL", "api.internal."),
        ("bücher.internal", "xn--bcher-kva.internal."),
        ("api_1.internal.", "api_1.internal."),
    ],
)
async def test_name_is_asked_for_in_ascii(name: str, asked: str) -> None:
    """By the rules for addresses of destinations (IDNA)."""
    async with scripted_dns(known(f"{asked} 1 IN A 10.0.0.1")) as server:
        await Names((server.nameserver,), family="ipv4").addresses(name)

    assert server.asked == [(asked, "A")]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a:80", "a..b", ".a", "a@b", "1.2.3.400"])
async def test_name_that_is_not_valid_is_refused(name: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match=r"host|empty|credentials|space|IPv4"):
        await Names((_NOBODY,)).addresses(name)


@pytest.mark.parametrize("literal", ["10.0.0.1", "fd00::1", "fe80::1%eth0"])
async def test_numeric_address_is_its_own_result(literal: str) -> None:
    """No server is asked."""
    assert await Names((_NOBODY,)).addresses(literal) == Found((literal,), HOSTS_SECONDS)


@pytest.mark.parametrize("name", ["localhost", "LocalHost.", "api.localhost"])
@pytest.mark.parametrize(
    ("family", "expected"),
    [("ipv4", ("127.0.0.1",)), ("ipv6", ("::1",)), ("both", ("127.0.0.1", "::1"))],
)
async def test_localhost_is_loopback(name: str, family: str, expected: tuple[str, ...]) -> None:
    """Without a query (RFC 6761 §6.3)."""
    names = Names((_NOBODY,), family=family, hosts="/dev/null")  # type: ignore[arg-type]

    assert await names.addresses(name) == Found(expected, HOSTS_SECONDS)


@pytest.mark.parametrize(
    ("family", "expected"),
    [("ipv4", ("10.0.0.7",)), ("ipv6", ("fd00::7",)), ("both", ("10.0.0.7", "fd00::7"))],
)
async def test_hosts_file_wins(hosts: Path, family: str, expected: tuple[str, ...]) -> None:
    """Its malformed addresses do not count; a final dot makes no difference."""
    names = Names((_NOBODY,), family=family, hosts=str(hosts))  # type: ignore[arg-type]

    assert await names.addresses("api.internal") == Found(expected, HOSTS_SECONDS)
    assert await names.addresses("API.internal.") == Found(expected, HOSTS_SECONDS)


async def test_changed_hosts_file_is_read(hosts: Path) -> None:
    """At the next look-up; servers are asked for what it lists no more."""
    async with scripted_dns(known(*_PAIR)) as server:
        names = Names((server.nameserver,), family="ipv4", hosts=str(hosts))
        found = [(await names.addresses("api.internal")).records]
        for text in ("10.0.0.88 api.internal\n", "fd00::9 api.internal\n"):
            write(hosts, text)
            found.append((await names.addresses("api.internal")).records)

    assert found == [("10.0.0.7",), ("10.0.0.88",), ("10.0.0.1",)]


async def test_loopback_of_the_hosts_file_needs_no_route(
    hosts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``auto``; other addresses do."""
    monkeypatch.setattr(
        "fastapi_proxy_di.discovery.families.has_route", lambda version: version == 6
    )
    write(hosts, "127.0.0.3 api.internal\n10.0.0.7 api.internal\n")

    found = await Names((_NOBODY,), hosts=str(hosts)).addresses("api.internal")

    assert found.records == ("127.0.0.3",)


async def test_hosts_file_says_nothing_of_services(hosts: Path) -> None:
    """SRV records come from servers alone."""
    async with scripted_dns(known("api.internal. 9 IN SRV 0 0 80 b.")) as server:
        found = await Names((server.nameserver,), hosts=str(hosts)).services("api.internal")

    assert found == Found((Service(0, 0, 80, "b."),), 9.0)


async def test_servers_are_those_of_resolv_conf(resolv_conf: Path) -> None:
    """On port 53; a changed file is read at the next look-up."""
    texts = []
    for address in ("127.0.0.201", "127.0.0.202"):
        write(resolv_conf, f"nameserver {address}\nsearch .\n")
        names = Names(resolv_conf=str(resolv_conf), family="ipv4", timeout=0.1)
        with pytest.raises(LookupFailed) as failed:
            await names.addresses("x")
        texts.append(failed.value.reason)

    assert [text.partition(" ")[0] for text in texts] == ["127.0.0.201:53", "127.0.0.202:53"]


async def test_target_dot_is_an_empty_result() -> None:
    """RFC 2782: there is no such service."""
    async with scripted_dns(known("_api._tcp.x. 9 IN SRV 0 0 0 .")) as server:
        assert await Names((server.nameserver,)).services("_api._tcp.x.") == Found((), 9.0)


async def test_services_come_with_the_addresses_of_their_targets(resolv_conf: Path) -> None:
    """Each target is looked up once, by its absolute name; one without addresses gives none."""
    records = (
        "_api._tcp.x. 9 IN SRV 0 5 80 one.x.",
        "_api._tcp.x. 9 IN SRV 0 5 81 one.x.",
        "_api._tcp.x. 9 IN SRV 1 0 80 two.x.",
        "_api._tcp.x. 9 IN SRV 2 0 80 gone.x.",
        "one.x. 8 IN A 10.0.0.2",
        "one.x. 8 IN A 10.0.0.1",
        "two.x. 7 IN A 10.0.0.3",
        "gone.x. 6 IN TXT text",
    )
    async with scripted_dns(known(*records)) as server:
        names = Names((server.nameserver,), family="ipv4", resolv_conf=str(resolv_conf))
        found = await names.service_addresses("_api._tcp.x.")

    assert found.records == (
        (Service(0, 5, 80, "one.x."), "10.0.0.1"),
        (Service(0, 5, 80, "one.x."), "10.0.0.2"),
        (Service(0, 5, 81, "one.x."), "10.0.0.1"),
        (Service(0, 5, 81, "one.x."), "10.0.0.2"),
        (Service(1, 0, 80, "two.x."), "10.0.0.3"),
    )
    assert found.ttl == 7.0
    assert sorted(server.asked) == [
        ("_api._tcp.x.", "SRV"),
        ("gone.x.", "A"),
        ("one.x.", "A"),
        ("two.x.", "A"),
    ]


async def test_failure_of_one_target_is_a_failure() -> None:
    """The other look-ups end with it."""
    records = [f"_api._tcp.x. 9 IN SRV 0 5 80 t{number}.x." for number in range(50)]
    failing = {"t49.x.": dns.rcode.SERVFAIL}
    async with scripted_dns(known(*records, failing=failing)) as server:
        with pytest.raises(LookupFailed, match=r"A records of t49\.x\.: \S+ says SERVFAIL$"):
            await Names((server.nameserver,), "ipv4").service_addresses("_api._tcp.x.")


async def test_targets_are_looked_up_twenty_at_once() -> None:
    """A thousand of them do not take a thousand sockets."""
    records = [f"_api._tcp.x. 9 IN SRV 0 5 80 t{number}.x." for number in range(50)]
    services = known(*records)

    def respond(query: dns.message.Message, by_tcp: bool) -> Sequence[dns.message.Message | bytes]:
        return services(query, by_tcp) if "_api" in str(query.question[0].name) else []

    async with scripted_dns(respond) as server:
        names = Names((server.nameserver,), "ipv4", timeout=60.0)
        look_up = asyncio.create_task(names.service_addresses("_api._tcp.x."))
        await until(lambda: len(server.asked) >= 21)
        for _ in range(20):
            await asyncio.sleep(0.001)
        look_up.cancel()
        await asyncio.gather(look_up, return_exceptions=True)

    assert len(server.asked) == 21


def test_missing_dnspython_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that has it."""
    monkeypatch.delitem(sys.modules, "fastapi_proxy_di.discovery.dns", raising=False)
    monkeypatch.setitem(sys.modules, "dns.asyncresolver", None)
    monkeypatch.delattr("fastapi_proxy_di.discovery.dns", raising=False)

    with pytest.raises(ValueError, match=r"extra dns; run pip install 'fastapi-proxy-di\[dns\]'"):
        Names()


def test_bad_nameserver_is_refused() -> None:
    """At start."""
    with pytest.raises(ValueError, match="address of a DNS server"):
        Names(("dns.internal",))
