"""The sockets that dnspython asks servers with.

dnspython's own ones are asyncio's transports, which look up an IPv6 address with a zone in a
thread pool, do not hear that a port is closed, and close after the look-up has ended. These are
connected sockets: the kernel drops packets of others, a closed port is an error at once, and
the end of the look-up closes them, a cancelled one too. They work on asyncio and uvloop.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from typing import Any, Self, TypeVar

import dns.exception
import dns.inet

__all__ = ["Backend"]

_Result = TypeVar("_Result")


class Backend:
    """Makes sockets on the running loop. The interface is that of ``dns.asyncbackend.Backend``."""

    async def make_socket(
        self,
        af: int,
        socktype: int,
        proto: int = 0,
        source: Any = None,
        destination: Any = None,
        timeout: float | None = None,
    ) -> _Socket:
        """Make a socket that is connected to ``destination``, a numeric address and a port.

        Raises:
            OSError: No connection.
            dns.exception.Timeout: No connection in time.
        """
        sock = socket.socket(af, socktype, proto)
        try:
            sock.setblocking(False)
            address = dns.inet.low_level_address_tuple(destination, af)
            if socktype == socket.SOCK_DGRAM:
                sock.connect(address)  # only chooses the route
            else:
                await _within(timeout, asyncio.get_running_loop().sock_connect(sock, address))
        except BaseException:
            sock.close()
            raise
        return _Socket(sock, address)

    def datagram_connection_required(self) -> bool:
        """Make dnspython give the destination to ``make_socket`` for UDP too."""
        return True

    async def sleep(self, interval: float) -> None:
        """Wait before all servers are asked again."""
        await asyncio.sleep(interval)


class _Socket:
    """A connected socket, UDP (``sendto``, ``recvfrom``) or TCP (``sendall``, ``recv``)."""

    def __init__(self, sock: socket.socket, peer: Any) -> None:
        self.family = sock.family
        self._sock = sock
        self._peer = peer
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sock.close()

    async def sendto(self, what: bytes, destination: Any, timeout: float | None) -> int:
        await self.sendall(what, timeout)
        return len(what)

    async def sendall(self, what: bytes, timeout: float | None) -> None:
        await _within(timeout, self._loop.sock_sendall(self._sock, what))

    async def recvfrom(self, size: int, timeout: float | None) -> tuple[bytes, Any]:
        return await self.recv(size, timeout), self._peer

    async def recv(self, size: int, timeout: float | None) -> bytes:
        return await _within(timeout, self._loop.sock_recv(self._sock, size))


async def _within(seconds: float | None, awaitable: Awaitable[_Result]) -> _Result:
    try:
        async with asyncio.timeout(seconds):
            return await awaitable
    except TimeoutError as error:
        raise dns.exception.Timeout from error
