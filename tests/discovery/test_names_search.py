"""The search list: which names a short one stands for, and when the next one is looked up."""

from __future__ import annotations

from pathlib import Path

import dns.rcode
import pytest

from fastapi_proxy_di.discovery.found import Found, LookupFailed, Service
from fastapi_proxy_di.discovery.names import Names
from tests.support.dns_servers import known, scripted_dns


@pytest.fixture
def resolv_conf(tmp_path: Path) -> Path:
    """A file with the search list ``a b.c`` and ndots 1."""
    path = tmp_path / "resolv.conf"
    path.write_text("search a b.c\n")
    return path


@pytest.mark.parametrize(
    ("name", "there", "asked"),
    [
        ("x", "x.a.", ["x.a."]),
        ("x", "x.b.c.", ["x.a.", "x.b.c."]),
        ("x", "x.", ["x.a.", "x.b.c.", "x."]),
        ("x.y", "x.y.", ["x.y."]),
        ("x.y", "x.y.b.c.", ["x.y.", "x.y.a.", "x.y.b.c."]),
        ("x.", "x.", ["x."]),
    ],
)
async def test_search_list_ends_at_the_first_name_with_records(
    resolv_conf: Path, name: str, there: str, asked: list[str]
) -> None:
    """In the order of glibc."""
    async with scripted_dns(known(f"{there} 30 IN A 10.0.0.1")) as server:
        names = Names((server.nameserver,), family="ipv4", resolv_conf=str(resolv_conf))
        found = await names.addresses(name)

    assert found == Found(("10.0.0.1",), 30.0)
    assert [one for one, _ in server.asked] == asked


async def test_search_list_holds_for_services(resolv_conf: Path) -> None:
    """As for addresses."""
    async with scripted_dns(known("_api._tcp.b.c. 30 IN SRV 0 0 80 x.")) as server:
        names = Names((server.nameserver,), resolv_conf=str(resolv_conf))
        found = await names.services("_api._tcp")

    assert found.records == (Service(0, 0, 80, "x."),)
    assert [one for one, _ in server.asked] == ["_api._tcp.", "_api._tcp.a.", "_api._tcp.b.c."]


@pytest.mark.parametrize("target", [".", "bad/target."])
async def test_service_that_is_not_available_ends_the_search(
    resolv_conf: Path, target: str
) -> None:
    """The name has a record, so a later name is another one. A bad target is a failure."""
    records = (f"_api.a. 9 IN SRV 0 0 80 {target}", "_api. 9 IN SRV 0 0 80 other.")
    async with scripted_dns(known(*records)) as server:
        names = Names((server.nameserver,), resolv_conf=str(resolv_conf))
        if target == ".":
            assert await names.services("_api") == Found((), 9.0)
        else:
            with pytest.raises(LookupFailed, match="SRV records of _api: one has a target"):
                await names.services("_api")

    assert server.asked == [("_api.a.", "SRV")]


async def test_name_without_such_records_leads_on(resolv_conf: Path) -> None:
    """As one that does not exist: a wildcard of another kind may be in the way."""
    records = ("x.a. 30 IN TXT text", "x.b.c. 30 IN A 10.0.0.1")
    async with scripted_dns(known(*records)) as server:
        names = Names((server.nameserver,), family="ipv4", resolv_conf=str(resolv_conf))

        assert (await names.addresses("x")).records == ("10.0.0.1",)


@pytest.mark.parametrize(
    ("code", "asked", "found"),
    [
        (dns.rcode.SERVFAIL, ["x.a.", "x.b.c."], ("10.0.0.2",)),
        (dns.rcode.REFUSED, ["x.a.", "x."], ("10.0.0.3",)),
    ],
)
async def test_failure_in_the_search_list(
    resolv_conf: Path, code: dns.rcode.Rcode, asked: list[str], found: tuple[str, ...]
) -> None:
    """SERVFAIL leads on to the next name, another failure to the name as written."""
    records = ("x.b.c. 30 IN A 10.0.0.2", "x. 30 IN A 10.0.0.3")
    async with scripted_dns(known(*records, failing={"x.a.": code})) as server:
        names = Names((server.nameserver,), family="ipv4", resolv_conf=str(resolv_conf))

        assert (await names.addresses("x")).records == found
        assert [one for one, _ in server.asked] == asked


async def test_failure_of_the_name_as_written_leads_on(resolv_conf: Path) -> None:
    """Any kind of failure, where it came first."""
    failing = {"x.y.": dns.rcode.REFUSED}
    async with scripted_dns(known("x.y.a. 30 IN A 10.0.0.2", failing=failing)) as server:
        names = Names((server.nameserver,), family="ipv4", resolv_conf=str(resolv_conf))

        assert (await names.addresses("x.y")).records == ("10.0.0.2",)


async def test_failure_of_one_family_ends_the_search(resolv_conf: Path) -> None:
    """A later name is another one, even where it has both families."""
    records = ("x.a. 30 IN A 10.0.0.1", "x. 30 IN A 10.0.0.3", "x. 30 IN AAAA fd00::3")
    failing = {"x.a. AAAA": dns.rcode.SERVFAIL}
    async with scripted_dns(known(*records, failing=failing)) as server:
        names = Names((server.nameserver,), family="both", resolv_conf=str(resolv_conf))
        with pytest.raises(LookupFailed, match=r"AAAA records of x\.a\."):
            await names.addresses("x")

    assert {one for one, _ in server.asked} == {"x.a."}


async def test_failure_decides_where_no_name_has_records(resolv_conf: Path) -> None:
    """The first one: the empty results of the other names are not certain."""
    failing = {"x.a.": dns.rcode.SERVFAIL, "x.": dns.rcode.REFUSED}
    async with scripted_dns(known(failing=failing)) as server:
        names = Names((server.nameserver,), family="ipv4", resolv_conf=str(resolv_conf))
        with pytest.raises(LookupFailed, match=r"A records of x\.a\.: \S+ says SERVFAIL$"):
            await names.addresses("x")

    assert [one for one, _ in server.asked] == ["x.a.", "x.b.c.", "x."]


async def test_name_that_nobody_knows_is_empty(resolv_conf: Path) -> None:
    """After all names of the search list."""
    async with scripted_dns(known()) as server:
        names = Names((server.nameserver,), family="both", resolv_conf=str(resolv_conf))

        assert await names.addresses("x") == Found((), 30.0)
        assert sorted(server.asked) == sorted(
            (name, kind) for name in ("x.a.", "x.b.c.", "x.") for kind in ("A", "AAAA")
        )


async def test_time_is_for_the_whole_search_list(resolv_conf: Path) -> None:
    """A silent server fails the look-up once, not once for each name."""
    async with scripted_dns(lambda query, by_tcp: []) as server:
        names = Names((server.nameserver,), "ipv4", 0.2, resolv_conf=str(resolv_conf))
        with pytest.raises(LookupFailed, match=r"x\.a\.: \S+ sent no response in time"):
            await names.addresses("x")

    assert {name for name, _ in server.asked} == {"x.a."}
