"""One question to DNS servers: what counts as records, as none, and as a failure."""

from __future__ import annotations

from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from fastapi_proxy_di.discovery.dns import DnsServers
from fastapi_proxy_di.discovery.found import Found, LookupFailed
from fastapi_proxy_di.settings.nameservers import parse_nameserver
from tests.support.dns_servers import Script, ScriptedDns, reply, scripted_dns
from tests.support.servers import dead_port

NAME = "api.internal."
RECORD = f"{NAME} 30 IN A 10.0.0.1"
BRIEF = 0.3
"""Seconds of a look-up that gets no response."""
LONG = 30.0


async def ask(
    *servers: ScriptedDns | str, seconds: float = LONG, kind: str = "A"
) -> Found[str] | str:
    """Give what was found, or the reason of the failure with ``S1`` for the first server."""
    texts = [one if isinstance(one, str) else one.nameserver for one in servers]
    asking = DnsServers([parse_nameserver(text) for text in texts])
    try:
        found = await asking.ask(NAME, kind, seconds)
    except LookupFailed as failed:
        shown = str(failed).removeprefix(f"cannot look up {kind} records of {NAME}: ")
        for number, text in enumerate(texts, 1):
            shown = shown.replace(text, f"S{number}")
        return shown
    return Found(tuple(str(record) for record in found.records), found.ttl)


def script(*records: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> Script:
    """Give the same records for each query."""
    return lambda query, by_tcp: [reply(query, *records, rcode=rcode)]


def silent(query: dns.message.Message, by_tcp: bool) -> list[bytes]:
    """Never respond."""
    return []


@pytest.mark.parametrize("kind", ["A", "AAAA", "SRV"])
async def test_records_come_with_their_ttl(kind: str) -> None:
    """0 stays 0."""
    data = {"A": "10.0.0.1", "AAAA": "fd00::1", "SRV": "1 2 80 a."}[kind]
    async with scripted_dns(script(f"{NAME} 0 IN {kind} {data}")) as server:
        assert await ask(server, kind=kind) == Found((data,), 0.0)


async def test_aliases_are_followed_and_their_ttl_counts() -> None:
    """The smallest TTL of the chain is that of the records."""
    records = [f"{NAME} 60 IN CNAME b.", "b. 5 IN CNAME c.", "c. 30 IN A 10.0.0.1"]

    async with scripted_dns(script(*records)) as server:
        assert await ask(server) == Found(("10.0.0.1",), 5.0)


@pytest.mark.parametrize(
    "records",
    [
        [f"{NAME} 60 IN CNAME b.", f"b. 60 IN CNAME {NAME}"],
        [
            f"{NAME} 60 IN CNAME a0.",
            *(f"a{number}. 60 IN CNAME a{number + 1}." for number in range(40)),
            "a40. 60 IN A 10.0.0.1",
        ],
    ],
    ids=["loop", "long"],
)
async def test_aliases_without_end_fail(records: list[str]) -> None:
    """Followed for a bounded number of steps."""
    async with scripted_dns(script(*records)) as server:
        assert await ask(server) == "S1 sent a response that is not valid (ChainTooLong)"


def _negative(rcode: dns.rcode.Rcode, *soa: str) -> Script:
    def respond(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
        message = reply(query, rcode=rcode)
        message.flags |= dns.flags.RA
        message.authority += [dns.rrset.from_text("internal.", 20, "IN", "SOA", one) for one in soa]
        return [message]

    return respond


@pytest.mark.parametrize("rcode", [dns.rcode.NOERROR, dns.rcode.NXDOMAIN])
@pytest.mark.parametrize(
    ("soa", "ttl"),
    [
        (["ns. mail. 1 3600 600 86400 7"], 7.0),
        (["ns. mail. 1 3600 600 86400 3600"], 20.0),
        ([], 30.0),
    ],
)
async def test_no_records_are_an_empty_result(
    rcode: dns.rcode.Rcode, soa: list[str], ttl: float
) -> None:
    """Its TTL is that of the SOA record (RFC 2308 §5), at most half a minute."""
    async with scripted_dns(_negative(rcode, *soa)) as server:
        assert await ask(server) == Found((), ttl)


async def test_alias_of_nothing_is_an_empty_result() -> None:
    """The name exists; what it stands for does not."""

    def respond(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
        message = reply(query, f"{NAME} 4 IN CNAME gone.internal.", rcode=dns.rcode.NXDOMAIN)
        return [message]

    async with scripted_dns(respond) as server:
        assert await ask(server) == Found((), 4.0)


@pytest.mark.parametrize(
    "rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP, dns.rcode.FORMERR]
)
async def test_server_that_cannot_say_fails_at_once(rcode: dns.rcode.Rcode) -> None:
    """By its name; it is asked once."""
    async with scripted_dns(script(rcode=rcode)) as server:
        assert await ask(server) == f"S1 says {rcode.name}"
        assert server.asked == [(NAME, "A")]


async def test_yxdomain_fails() -> None:
    """The response code for an alias of a whole subtree that gets too long (RFC 6672)."""
    async with scripted_dns(script(rcode=dns.rcode.YXDOMAIN)) as server:
        assert "YXDOMAIN" in str(await ask(server))


async def test_reference_to_other_servers_fails() -> None:
    """A server without the zone that asks no others does not say that there are no records."""

    def respond(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
        message = reply(query)
        message.authority.append(dns.rrset.from_text("internal.", 60, "IN", "NS", "ns.internal."))
        return [message]

    async with scripted_dns(respond) as server:
        assert await ask(server) == "S1 only refers to other servers"


async def test_empty_response_without_flags_is_an_empty_result() -> None:
    """Simple servers say neither that they are responsible nor that they ask others."""
    async with scripted_dns(script()) as server:
        assert await ask(server) == Found((), 30.0)


async def test_next_server_is_asked_after_a_failure() -> None:
    """In their order, each by its own fault: refused packets, SERVFAIL, silence."""
    gone = f"127.0.0.1:{dead_port()}"
    async with (
        scripted_dns(script(rcode=dns.rcode.SERVFAIL)) as failing,
        scripted_dns(silent) as mute,
        scripted_dns(script(RECORD)) as good,
    ):
        assert await ask(gone, failing, mute, good, seconds=2.0) == Found(("10.0.0.1",), 30.0)
        assert len(failing.asked) == 1
        assert mute.asked


async def test_failure_names_each_server() -> None:
    """What it did, once, without the text of any response."""
    gone = f"127.0.0.1:{dead_port()}"
    async with (
        scripted_dns(silent) as mute,
        scripted_dns(script(rcode=dns.rcode.SERVFAIL)) as failing,
    ):
        assert await ask(gone, mute, failing, seconds=3 * BRIEF) == (
            "S1 failed: Connection refused, S2 sent no response in time, S3 says SERVFAIL"
        )


async def test_silent_server_is_asked_twice() -> None:
    """One lost packet is not a failure."""
    lost: list[bytes] = []

    def respond(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
        lost.append(b"")
        return [reply(query, RECORD)] if len(lost) > 1 else []

    async with scripted_dns(respond) as server:
        assert await ask(server, seconds=1.0) == Found(("10.0.0.1",), 30.0)


async def test_look_up_ends_in_time_if_the_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dnspython measures by the machine's clock; the time of the loop bounds it."""
    monkeypatch.setattr("fastapi_proxy_di.discovery.dns._LATE_SECONDS", 0.0)
    monkeypatch.setattr("dns.asyncresolver.Resolver._compute_timeout", lambda *_: LONG)
    async with scripted_dns(silent) as server:
        assert await ask(server, seconds=BRIEF) == "S1 sent no response in time"


async def test_no_time_left_fails() -> None:
    """Nothing is sent."""
    async with scripted_dns(script(RECORD)) as server:
        assert await ask(server, seconds=0.0) == "S1 sent no response in time"
        assert server.asked == []


async def test_truncated_response_is_asked_for_by_tcp() -> None:
    """What came by UDP is not used."""

    def respond(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
        if by_tcp:
            return [reply(query, RECORD)]
        return [reply(query, f"{NAME} 30 IN A 10.0.0.9", truncated=True)]

    async with scripted_dns(respond) as server:
        assert await ask(server) == Found(("10.0.0.1",), 30.0)
        assert server.by_tcp == 1


@pytest.mark.parametrize(
    ("by_tcp", "expected"),
    [
        (lambda query: [reply(query, truncated=True)], "S1 sent a truncated response by TCP"),
        (lambda query: [], "S1 by TCP closed the connection"),
        (lambda query: [b"\0" * 5], "S1 by TCP sent a response that is not valid (ShortHeader)"),
        (lambda query: [b"\xff" * 40], "S1 by TCP sent a response that is not valid"),
        (
            lambda query: [reply(dns.message.make_query("other.", "A"))],
            "S1 by TCP sent a response that is not valid (BadResponse)",
        ),
    ],
    ids=["truncated", "closed", "short", "garbage", "other"],
)
async def test_failure_by_tcp(
    by_tcp: Callable[[dns.message.Message], list[dns.message.Message | bytes]], expected: str
) -> None:
    """The server is not asked again by UDP."""

    def respond(query: dns.message.Message, tcp: bool) -> list[dns.message.Message | bytes]:
        return by_tcp(query) if tcp else [reply(query, truncated=True)]

    async with scripted_dns(respond) as server:
        assert expected in str(await ask(server, seconds=1.0))


async def test_truncated_response_without_tcp_fails() -> None:
    """What came by UDP may be a part of the records only."""
    truncated = lambda query, by_tcp: [reply(query, RECORD, truncated=True)]  # noqa: E731
    async with scripted_dns(truncated, tcp=False) as server:
        assert "S1 by TCP failed: Connection refused" in str(await ask(server))


async def test_thousand_records_are_found() -> None:
    """By TCP, as they do not fit into a packet."""
    records = [f"{NAME} 30 IN A 10.0.{number >> 8}.{number & 255}" for number in range(1000)]

    def respond(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
        return [reply(query, *records) if by_tcp else reply(query, truncated=True)]

    async with scripted_dns(respond) as server:
        found = await ask(server)

    assert isinstance(found, Found)
    assert len(set(found.records)) == 1000


async def test_forged_responses_are_ignored() -> None:
    """For another question, with another number, no response at all, and garbage."""

    def respond(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message | bytes]:
        forged = f"{NAME} 30 IN A 6.6.6.6"
        other = dns.message.make_query("other.internal.", "A", id=query.id)
        wrong_number = reply(query, forged)
        wrong_number.id = (query.id + 1) % 65536
        not_a_response = reply(query, forged)
        not_a_response.flags &= ~dns.flags.QR
        cut = reply(query, forged).to_wire()[:-3]
        return [
            reply(other, forged, "other.internal. 30 IN A 6.6.6.6"),
            wrong_number,
            not_a_response,
            b"",
            b"\0",
            b"\xff" * 600,
            cut,
            reply(query, RECORD),
        ]

    async with scripted_dns(respond) as server:
        assert await ask(server) == Found(("10.0.0.1",), 30.0)


async def test_records_of_other_names_in_a_response_are_ignored() -> None:
    """Only those of the name asked for, and of its aliases."""
    async with scripted_dns(script("other. 30 IN A 6.6.6.6", RECORD)) as server:
        assert await ask(server) == Found(("10.0.0.1",), 30.0)


async def test_queries_announce_edns() -> None:
    """So that most responses fit into one packet, and no network splits it."""
    payloads: list[int] = []

    def respond(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
        payloads.append(query.payload)
        return [reply(query, RECORD)]

    async with scripted_dns(respond) as server:
        await ask(server)

    assert payloads == [1232]


async def test_server_may_have_an_ipv6_address() -> None:
    """By UDP and by TCP."""

    def respond(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
        return [reply(query, RECORD) if by_tcp else reply(query, truncated=True)]

    async with scripted_dns(respond, "::1") as server:
        assert await ask(server) == Found(("10.0.0.1",), 30.0)
