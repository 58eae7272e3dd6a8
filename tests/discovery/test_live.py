"""Names that change under load: a gateway, real name servers, and an origin on many addresses."""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from fastapi_proxy_di.settings import DestinationSettings
from tests.discovery.live import Load, known, lines, live, origin
from tests.support.dns_servers import bind, dnsmasq, reply, scripted_dns
from tests.support.gateways import Gateway, billing, gateway, until
from tests.support.http_client import fetch
from tests.support.servers import free_port

pytestmark = pytest.mark.e2e


@pytest.mark.slow
async def test_name_grows_and_shrinks_under_load(tmp_path: Path) -> None:
    """From 3 to 30 to 1: no request fails, and no POST arrives twice."""
    async with (
        origin() as server,
        dnsmasq(tmp_path, lines(1, 2, 3)) as names,
        live(server.port, names.nameserver) as gate,
    ):
        load = Load(gate)
        await load.more(30)
        await names.write(lines(*range(1, 31)))
        await until(lambda: known(gate) == 30)
        await load.more(150)
        await names.write(lines(17))
        await until(lambda: known(gate) == 1)
        before = server.served.copy()
        await load.more(30)
        await load.stop()
        late = server.served - before

    assert {status for _, status in load.statuses} == {200}
    assert set(server.posts.values()) <= {0, 1}
    assert sum(server.posts.values()) == load.statuses["POST", 200]
    assert len(server.served) == 30
    # What was under way when an address left is finished there.
    assert sum(count for address, count in late.items() if address != "127.0.0.17") <= 12
    assert server.hosts == {f"api.internal:{server.port}"}


@pytest.mark.slow
async def test_zone_of_bind_is_reloaded_under_load(tmp_path: Path) -> None:
    """Ten times, to other addresses each time: no request fails."""

    def records(*numbers: int) -> str:
        return "".join(f"api 0 A 127.0.0.{number}\n" for number in numbers)

    async with origin() as server, bind(tmp_path, records(1, 2)) as names:
        settings = {"nameservers": [names.nameserver], "refresh": 0.05, "family": "both"}
        source = f"dns+http://api.example:{server.port}"
        async with gateway(source, policy="round_robin", discovery=settings) as gate:
            load = Load(gate)
            for first in range(3, 23, 2):
                await names.write(records(first, first + 1))
                wanted = [f"http://127.0.0.{first + one}:{server.port}" for one in range(2)]
                await until(partial(_has, gate, wanted))
                await load.more(20)
            await load.stop()

    assert {status for _, status in load.statuses} == {200}
    assert set(server.posts.values()) <= {0, 1}
    assert len(server.served) >= 20


@pytest.mark.slow
async def test_last_addresses_serve_while_the_server_is_stopped(tmp_path: Path) -> None:
    """For ``keep``; a server that is back is asked again."""
    port = free_port()
    async with origin() as server, contextlib.AsyncExitStack() as stack:
        names = await stack.enter_async_context(dnsmasq(tmp_path, lines(1, 2), port=port))
        gate = await stack.enter_async_context(
            live(server.port, names.nameserver, keep=3, on_empty="drop")
        )
        await names.stop()
        await until(lambda: gate.balancer.status().sources[0].reason)
        kept = await fetch(gate.address, target="/billing/x")
        await until(lambda: known(gate) == 0)
        dropped = await fetch(gate.address, target="/billing/x")
        await stack.enter_async_context(dnsmasq(tmp_path, lines(3), port=port))
        await until(lambda: known(gate) == 1)
        back = await fetch(gate.address, target="/billing/x")

    assert (kept.status, dropped.status, back.status) == (200, 503, 200)
    assert back.body == b"127.0.0.3"


@pytest.mark.parametrize(("on_empty", "expected"), [("keep", 200), ("drop", 503)])
async def test_name_that_is_gone_is_kept_or_dropped(
    on_empty: str, expected: int, tmp_path: Path
) -> None:
    """The server says that the name does not exist."""
    async with (
        origin() as server,
        dnsmasq(tmp_path, lines(1)) as names,
        live(server.port, names.nameserver, on_empty=on_empty) as gate,
    ):
        await names.write("127.0.0.9 other.internal\n")
        await until(lambda: gate.balancer.status().sources[0].reason == "it has no destinations")
        response = await fetch(gate.address, target="/billing/x")

    assert response.status == expected


async def test_failure_of_the_server_changes_nothing() -> None:
    """SERVFAIL is no empty response, whatever ``on_empty`` says."""
    fails = False

    def script(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
        if fails:
            return [reply(query, rcode=dns.rcode.SERVFAIL)]
        return [reply(query, "api.internal. 0 IN A 127.0.0.1")]

    async with (
        origin() as server,
        scripted_dns(script) as names,
        live(server.port, names.nameserver, on_empty="drop", family="ipv4") as gate,
    ):
        fails = True
        await until(lambda: "SERVFAIL" in gate.balancer.status().sources[0].reason)
        response = await fetch(gate.address, target="/billing/x")

    assert response.status == 200


async def test_name_that_flaps_keeps_connections_and_ejections() -> None:
    """Each response has another half of the addresses."""
    turn = 0

    def script(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
        nonlocal turn
        turn += 1
        flapping = 2 + turn % 2
        return [
            reply(
                query,
                "api.internal. 0 IN A 127.0.0.1",
                f"api.internal. 0 IN A 127.0.0.{flapping}",
            )
        ]

    async with (
        origin() as server,
        scripted_dns(script) as names,
        live(server.port, names.nameserver, family="ipv4") as gate,
    ):
        upstream = gate.balancer._running
        bad = gate.balancer.destinations[1]
        for _ in range(5):
            upstream.supervisor.failed(bad, "connect")
        until_then = bad.ejected_until

        def is_listed() -> bool:
            return gate.balancer.destinations[1].url == bad.url

        await until(lambda: not is_listed())
        await until(is_listed)
        again = gate.balancer.destinations[1]
        responses = [await fetch(gate.address, target="/billing/x") for _ in range(10)]

    assert again is not bad
    assert again.ejected_until == until_then is not None
    assert {one.status for one in responses} == {200}


@pytest.mark.parametrize("scheme", ["dns", "srv"])
async def test_another_host_reaches_addresses_that_are_known(scheme: str, tmp_path: Path) -> None:
    """At the change of the settings, not at the next change of the records."""
    async with origin() as server:
        service = f"--srv-host=_api._tcp.internal,api.internal,{server.port}"
        async with dnsmasq(tmp_path, lines(1, 2), service) as names:
            name = "_api._tcp.internal" if scheme == "srv" else f"api.internal:{server.port}"
            source = f"{scheme}+http://{name}"
            discovery = {"nameservers": [names.nameserver], "family": "ipv4"}
            settings = billing(source, discovery=discovery)
            async with gateway(source, discovery=discovery) as gate:
                await fetch(gate.address, target="/billing/x")
                for host in ("first.example", "second.example", None):
                    entry = DestinationSettings(url=source, **({"host": host} if host else {}))
                    await gate.balancer.reload(
                        settings.model_copy(update={"destinations": (entry,)})
                    )
                    await fetch(gate.address, target="/billing/x")
                    assert {one.settings.host for one in gate.balancer.destinations} == {
                        host or f"api.internal:{server.port}"
                    }

    assert server.hosts == {f"api.internal:{server.port}", "first.example", "second.example"}


async def test_counts_are_right_where_addresses_flap() -> None:
    """An address that comes back goes on with its own; each source has its own list."""
    listed = ["api.internal. 0 IN A 127.0.0.2", "api.internal. 0 IN A 127.0.0.3"]
    stable = "other.internal. 0 IN A 127.0.0.1"
    turn, flaps = 0, True

    def script(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
        nonlocal turn
        if query.question[0].name.to_text() == "other.internal.":
            return [reply(query, stable)]
        turn += 1
        return [reply(query, *(listed[turn % 2 :][:1] if flaps else listed))]

    async with origin() as server, scripted_dns(script) as names:
        settings = {"nameservers": [names.nameserver], "refresh": 0.02, "family": "ipv4"}
        sources = [f"dns+http://{name}.internal:{server.port}" for name in ("api", "other")]
        async with gateway(*sources, policy="round_robin", discovery=settings) as gate:
            load = Load(gate)
            await until(lambda: turn > 20 and len(server.served) == 3, 30)
            await load.stop()
            flaps = False
            await until(lambda: known(gate) == 3)
            status = gate.balancer.status()

    assert {status for _, status in load.statuses} == {200}
    assert {one.url: one.attempts for one in status.destinations} == {
        f"http://{address}:{server.port}": count for address, count in server.served.items()
    }
    assert [(one.source, one.found, one.reason) for one in status.sources] == [
        (sources[0], 2, ""),
        (sources[1], 1, ""),
    ]


async def test_failed_dial_finds_the_new_address(tmp_path: Path) -> None:
    """The old one is dead, and the next look-up would be in an hour."""
    async with (
        origin("127.0.0.2") as server,
        dnsmasq(tmp_path, lines(1)) as names,
        live(server.port, names.nameserver, refresh=3600) as gate,
    ):
        await names.write(lines(2))
        first = await fetch(gate.address, target="/billing/x")
        await until(lambda: gate.balancer.destinations[0].url.startswith("http://127.0.0.2"))
        second = await fetch(gate.address, target="/billing/x")

    assert first.status in (200, 502)
    assert second.body == b"127.0.0.2"


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False  # pragma: no cover


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
async def test_name_with_ipv6_alone(tmp_path: Path) -> None:
    """Dialled by its number, under load; Host is the name."""
    async with (
        origin("::1") as server,
        dnsmasq(tmp_path, "::1 api.internal\n") as names,
        live(server.port, names.nameserver, family="ipv6") as gate,
    ):
        load = Load(gate)
        await load.more(40)
        await load.stop()

    assert {status for _, status in load.statuses} == {200}
    assert set(server.served) == {"::1"}
    assert server.hosts == {f"api.internal:{server.port}"}


def _has(gate: Gateway, urls: list[str]) -> bool:
    return urls == [one.url for one in gate.balancer.destinations]


async def test_file_changes_under_load(tmp_path: Path) -> None:
    """Each replacement of the file moves the traffic, and no request fails."""
    path = tmp_path / "billing.toml"

    def write(*numbers: int) -> None:
        urls = [f"http://127.0.0.{number}:{server.port}" for number in numbers]
        other = path.with_suffix(".new")
        other.write_text(f"destinations = {urls}")
        other.replace(path)

    async with origin() as server:
        write(1)
        async with gateway(
            f"file://{path}", policy="round_robin", discovery={"refresh": 0.02}
        ) as gate:
            load = Load(gate)
            for numbers in ([2, 3], [4], [*range(5, 15)]):
                write(*numbers)
                wanted = [f"http://127.0.0.{number}:{server.port}" for number in numbers]
                await until(partial(_has, gate, wanted))
                await load.more(20)
            await load.stop()

    assert {status for _, status in load.statuses} == {200}
    assert len(server.served) >= 10
