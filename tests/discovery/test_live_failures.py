"""Requests all the time while look-ups fail, or have more to say than fits into a packet."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.discovery.live import Load, known, lines, live, origin
from tests.support.dns_servers import Bind, DnsMasq, bind, dnsmasq
from tests.support.gateways import Gateway, until

pytestmark = pytest.mark.e2e

Change = Callable[[Any], Coroutine[Any, Any, None]]
Seen = Callable[[Gateway], bool]


def zone(number: int) -> str:
    """Give this many addresses of the name, for bind9."""
    return "".join(f"api 0 A 127.0.0.{one}\n" for one in range(1, number + 1))


def a_thousand() -> str:
    """Give as many addresses of the name, for dnsmasq; bind9 has at most 100 of a name."""
    return "".join(f"127.0.{one // 250}.{one % 250 + 1} api.internal\n" for one in range(1000))


def reason(gate: Gateway) -> str:
    """Give why the last look-up found nothing."""
    return gate.balancer.status().sources[0].reason


CASES: dict[str, tuple[type, Change, Seen]] = {
    "stopped": (Bind, Bind.stop, lambda gate: "refused" in reason(gate)),
    "SERVFAIL": (Bind, Bind.fail, lambda gate: "SERVFAIL" in reason(gate)),
    "NXDOMAIN": (
        Bind,
        lambda names: names.write("other 0 A 127.0.0.9\n"),
        lambda gate: reason(gate) == "it has no destinations",
    ),
    "truncated": (Bind, lambda names: names.write(zone(100)), lambda gate: known(gate) == 100),
    "thousand": (
        DnsMasq,
        lambda names: names.write(a_thousand()),
        lambda gate: known(gate) == 1000,
    ),
}


@pytest.mark.parametrize(("kind", "change", "seen"), CASES.values(), ids=CASES)
async def test_no_request_fails_whatever_the_name_server_does(
    kind: type, change: Change, seen: Seen, tmp_path: Path
) -> None:
    """The last list serves; a response that does not fit into a packet is read by TCP."""
    first: Any = bind(tmp_path, zone(3)) if kind is Bind else dnsmasq(tmp_path, lines(1, 2, 3))
    name = "api.example" if kind is Bind else "api.internal"
    async with (
        origin() as server,
        first as names,
        live(server.port, names.nameserver, name=name) as gate,
    ):
        load = Load(gate)
        await load.more(20)
        await change(names)
        await until(lambda: seen(gate))
        before = server.served.copy()
        await load.more(60)
        await load.stop()
        found = known(gate)

    assert {status for _, status in load.statuses} == {200}
    assert len(server.served - before) >= min(found, 60)
    assert max(server.posts.values()) == 1
