"""Responses of name servers, read in pieces, are what dnspython reads."""

from __future__ import annotations

import struct

import dns.exception
import dns.message
import dns.rcode
import dns.rdata
import pytest

from fastapi_proxy_di.discovery.dns_message import read_question, read_records
from fastapi_proxy_di.discovery.pieces import Pieces

QUERY = dns.message.make_query("api.internal.", "A", use_edns=0, payload=1232)
HEAD = "id 1\nopcode QUERY\nrcode NOERROR\nflags QR RA\nedns 0\npayload 1232\n;QUESTION\n"
TEXTS = {
    "addresses": "api. IN A\n;ANSWER\napi. 30 IN A 10.0.0.1\napi. 20 IN A 10.0.0.2\n",
    "aliases": "a. IN AAAA\n;ANSWER\na. 9 IN CNAME b.c.\nb.c. 0 IN AAAA fd00::1\n",
    "services": "_a._tcp.i. IN SRV\n;ANSWER\n_a._tcp.i. 30 IN SRV 1 2 80 a.i.\n"
    ";ADDITIONAL\na.i. 30 IN A 10.0.0.1\n",
    "negative": "a.i. IN A\n;AUTHORITY\ni. 20 IN SOA ns.i. mail.i. 1 3600 600 86400 7\n",
    "unknown": "a. IN TYPE65280\n;ANSWER\na. 30 IN TYPE65280 \\# 2 abcd\n",
}


async def read(packet: bytes) -> dns.message.Message:
    """Read a whole response."""
    message = read_question(packet)
    await read_records(message, packet, Pieces())
    return message


async def whole(packet: bytes) -> dns.message.Message:
    """Read a whole response as dnspython does."""
    return dns.message.from_wire(packet)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_response_is_read_as_dnspython_reads_it(text: str) -> None:
    """All sections, with compressed names, the smallest TTL of a set, and EDNS."""
    packet = dns.message.from_text(HEAD + text).to_wire()
    whole, in_pieces = dns.message.from_wire(packet), await read(packet)

    assert in_pieces.to_text() == whole.to_text()
    assert [[one.ttl for one in section] for section in in_pieces.sections] == [
        [one.ttl for one in section] for section in whole.sections
    ]


async def test_extended_code_is_read() -> None:
    """A part of it is in the EDNS record."""
    response = dns.message.make_response(QUERY)
    response.set_rcode(dns.rcode.BADVERS)

    assert (await read(response.to_wire())).rcode() == dns.rcode.BADVERS


async def test_too_large_ttl_counts_as_none() -> None:
    """RFC 2181 §8."""
    text = f"{HEAD}api. IN A\n;ANSWER\napi. 30 IN A 10.0.0.1\n"
    packet = dns.message.from_text(text).to_wire().replace(b"\0\0\0\x1e", b"\xff\0\0\0")

    assert (await read(packet)).answer[0].ttl == 0


@pytest.mark.parametrize("spoilt", [lambda one: one + b"\0", lambda one: one[:-3]])
async def test_packet_with_another_length_is_refused(spoilt: object) -> None:
    """Too long, or cut off."""
    assert callable(spoilt)
    packet = dns.message.from_text(HEAD + TEXTS["addresses"]).to_wire()
    with pytest.raises(dns.exception.DNSException):
        await read(spoilt(packet))


def opt_moved(section: int, *, name: bytes = b"\0", times: int = 1) -> bytes:
    """Give a response with OPT records in a section, 1 to 3."""
    counts = [0, 0, 0, 0]
    counts[section] = times
    return struct.pack("!6H", 1, 0x8180, *counts) + (name + b"\0\x29\4\xd0\0\0\0\0\0\0") * times


@pytest.mark.parametrize(
    "packet",
    [
        opt_moved(1),
        opt_moved(2),
        opt_moved(3, times=2),
        opt_moved(3, name=b"\1a\0"),
    ],
    ids=["answer", "authority", "two", "named"],
)
async def test_misplaced_edns_is_refused(packet: bytes) -> None:
    """One, in the additional section, of the root: RFC 6891 §6.1.1; dnspython refuses others."""
    for reading in (read, whole):
        with pytest.raises(dns.message.BadEDNS):
            await reading(packet)
    assert (await read(opt_moved(3))).payload == 1232


async def test_response_with_several_questions_is_refused() -> None:
    """No query has several, and thousands would take long to read."""
    packet = struct.pack("!6H", 1, 0x8180, 8000, 0, 0, 0) + b"\1a\0\0\1\0\1" * 8000
    with pytest.raises(dns.exception.FormError):
        await read(packet)


async def test_long_data_stays_as_it_is() -> None:
    """Thousands of texts in one record would take long to read, and nothing needs them."""
    texts = b"\0" * 60000
    packet = struct.pack("!6H", 1, 0x8180, 0, 1, 0, 0) + b"\1a\0\0\x10\0\1\0\0\0\1"
    message = await read(packet + struct.pack("!H", len(texts)) + texts)

    assert message.answer[0][0].to_wire() == texts
    assert isinstance(message.answer[0][0], dns.rdata.GenericRdata)


async def test_long_edns_is_refused() -> None:
    """Its options are not decoded either, and without them it is no EDNS record."""
    packet = struct.pack("!6H", 1, 0x8180, 0, 0, 0, 1) + b"\0\0\x29\4\xd0\0\0\0\0"
    with pytest.raises(dns.message.BadEDNS):
        await read(packet + struct.pack("!H", 1025) + bytes(1025))
