"""Reads a response of a DNS server in pieces, since a thousand records take dnspython 20 to 50 ms.

The result is the same as that of ``dns.message.from_wire``, which reads all in one go. Three
things differ. What signs messages (TSIG) is not checked, because queries are not signed. More
than one question is refused, and long data is not decoded: nothing that is asked for has either,
and both could hold up the event loop.
"""

from __future__ import annotations

import struct
from typing import Final

import dns.exception
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.wire

from fastapi_proxy_di.discovery.pieces import Pieces

__all__ = ["read_question", "read_records"]

_HEADER_BYTES: Final = 12
_LONGEST_DATA: Final = 1024
_LARGEST_TTL: Final = 0x7FFFFFFF  # RFC 2181 §8: a larger one counts as 0


def read_question(packet: bytes) -> dns.message.Message:
    """Read the header and the question of a response, which say whether it is the one awaited.

    Raises:
        Exception: The packet is not valid; dnspython raises several kinds.
    """
    if len(packet) >= _HEADER_BYTES and struct.unpack_from("!H", packet, 4)[0] > 1:
        raise dns.exception.FormError
    return dns.message.from_wire(packet, question_only=True)


async def read_records(message: dns.message.Message, packet: bytes, pieces: Pieces) -> None:
    """Read the records of a response.

    Args:
        message: What ``read_question`` gave for the packet; gets the records.
        packet: The whole response.
        pieces: Of the look-up.

    Raises:
        Exception: The packet is not valid; dnspython raises several kinds.
    """
    parser = dns.wire.Parser(packet, _HEADER_BYTES)
    questions, *counts = struct.unpack_from("!4H", packet, 4)
    for _ in range(questions):
        _ = _name(parser)
        _ = parser.get_struct("!HH")
    for section, count in zip(message.sections[1:], counts, strict=True):
        for _ in range(count):
            await pieces.pause()
            _read_record(parser, message, section)
    if parser.remaining():
        raise dns.message.TrailingJunk


def _read_record(
    parser: dns.wire.Parser, message: dns.message.Message, section: list[dns.rrset.RRset]
) -> None:
    name = _name(parser)
    kind, record_class, ttl, size = parser.get_struct("!HHIH")
    if kind == dns.rdatatype.OPT and (
        section is not message.additional
        or message.opt
        or name != dns.name.root
        or size > _LONGEST_DATA
    ):
        raise dns.message.BadEDNS
    if size > _LONGEST_DATA:
        rest = parser.get_bytes(size)
        data: dns.rdata.Rdata = dns.rdata.GenericRdata(record_class, kind, rest)
    else:
        with parser.restrict_to(size):
            data = dns.rdata.from_wire_parser(record_class, kind, parser)
    if kind == dns.rdatatype.OPT:
        message.opt = dns.rrset.from_rdata(name, ttl, data)  # its TTL is a part of the code
        return
    records = message.find_rrset(
        section, name, data.rdclass, data.rdtype, data.covers(), create=True
    )
    records.add(data, 0 if ttl > _LARGEST_TTL else ttl)


def _name(parser: dns.wire.Parser) -> dns.name.Name:
    # Not the parser's own method, which does not decompress in every version of dnspython.
    name, size = dns.name.from_wire(parser.wire, parser.current)
    _ = parser.get_bytes(size)
    return name
