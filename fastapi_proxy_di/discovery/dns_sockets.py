"""The sockets that DNS servers are asked with.

dnspython's own ones are asyncio's transports, which look up an IPv6 address with a zone in a
thread pool, do not hear that a port is closed, and close after the look-up has ended. These are
connected sockets: the kernel drops packets of others, a closed port is an error at once, and
the end of the look-up closes them, a cancelled one too. They work on asyncio and uvloop.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Self

import dns.inet

__all__ = ["Connection", "connect"]


class Connection:
    """A connected socket, UDP or TCP; leaving its context closes it.

    Args:
        sock: The socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sock.close()

    async def send(self, what: bytes) -> None:
        """Send all bytes, by UDP as one packet."""
        await self._loop.sock_sendall(self._sock, what)

    async def receive(self, size: int) -> bytes:
        """Wait for at most ``size`` bytes, by UDP for one packet; empty at the end of TCP."""
        return await self._loop.sock_recv(self._sock, size)


async def connect(host: str, port: int, kind: socket.SocketKind) -> Connection:
    """Connect a socket.

    Args:
        host: Numeric address, with a zone if it needs one.
        port: The port.
        kind: ``SOCK_DGRAM`` for UDP, ``SOCK_STREAM`` for TCP.

    Raises:
        OSError: No connection.
    """
    family = dns.inet.af_for_address(host)
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        address = dns.inet.low_level_address_tuple((host, port), family)
        if kind == socket.SOCK_DGRAM:
            sock.connect(address)  # only chooses the route
        else:
            await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return Connection(sock)
