"""Asks one DNS server one question, by UDP or by TCP, for dnspython's resolver.

dnspython's own servers read a response in one go; these read it in pieces.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.nameserver
import dns.query

from fastapi_proxy_di.discovery.dns_message import read_question, read_records
from fastapi_proxy_di.discovery.dns_sockets import Connection, connect
from fastapi_proxy_di.discovery.pieces import Pieces

__all__ = ["NameServer"]

_LARGEST_PACKET = 65535


class NameServer(dns.nameserver.Do53Nameserver):
    """One server, as dnspython's resolver asks it.

    Args:
        address: Numeric address.
        port: Port for UDP and TCP.
    """

    async def async_query(
        self,
        request: dns.message.QueryMessage,
        timeout: float,
        source: str | None,
        source_port: int,
        max_size: bool,
        backend: Any,
        one_rr_per_rrset: bool = False,
        ignore_trailing: bool = False,
    ) -> dns.message.Message:
        """Send a query and wait for its response.

        Args:
            request: The query.
            timeout: Seconds for all.
            source: Not used, nor are the others that are not named here.
            source_port: Not used.
            max_size: Whether to ask by TCP.
            backend: Not used.
            one_rr_per_rrset: Not used.
            ignore_trailing: Not used.

        Raises:
            dns.message.Truncated: The response by UDP is not whole.
            dns.query.BadResponse: What came by TCP is not the response to this query.
            dns.exception.Timeout: There is no response in time.
            OSError: The server cannot be reached.
            EOFError: The server closed the connection.
        """
        kind = socket.SOCK_STREAM if max_size else socket.SOCK_DGRAM
        ask = _ask_by_tcp if max_size else _ask_by_udp
        try:
            # One time for all: reading the response counts too.
            async with asyncio.timeout(timeout):
                async with await connect(self.address, self.port, kind) as connection:
                    return await ask(connection, request)
        except TimeoutError as error:
            raise dns.exception.Timeout from error


async def _ask_by_udp(
    connection: Connection, request: dns.message.QueryMessage
) -> dns.message.Message:
    await connection.send(request.to_wire())
    pieces = Pieces()
    while True:
        packet = await connection.receive(_LARGEST_PACKET)
        # Where wrong packets come in a stream, ``receive`` has the next one without a wait.
        await pieces.pause()
        try:
            response = read_question(packet)
            if not request.is_response(response):
                continue
            if not response.flags & dns.flags.TC:
                await read_records(response, packet, pieces)
                return response
        except Exception:  # noqa: BLE001, S112  # dnspython raises several kinds
            continue
        truncated: Any = dns.message.Truncated
        raise truncated(message=response)


async def _ask_by_tcp(
    connection: Connection, request: dns.message.QueryMessage
) -> dns.message.Message:
    query = request.to_wire()
    await connection.send(struct.pack("!H", len(query)) + query)
    (size,) = struct.unpack("!H", await _exactly(connection, 2))
    packet = await _exactly(connection, size)
    response = read_question(packet)
    if not request.is_response(response):
        raise dns.query.BadResponse
    await read_records(response, packet, Pieces())
    return response


async def _exactly(connection: Connection, size: int) -> bytes:
    read = b""
    while len(read) < size:
        part = await connection.receive(size - len(read))
        if not part:
            raise EOFError
        read += part
    return read
