"""Connects to the first address that accepts: Happy Eyeballs (RFC 8305).

The families take turns, and the next address is tried after 250 ms, or at once when one fails.
``aiohappyeyeballs`` runs the race, on asyncio and on uvloop. It joins the failures of several
addresses to one text, so they are collected here: one refusal tells more than all timeouts.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from typing import Any, Final, cast

from aiohappyeyeballs import start_connection

from fastapi_proxy_di.transport.dialling.known_name import AddressInfo

__all__ = ["SHORTAGES", "connect_first", "decisive"]

STEP_SECONDS: Final = 0.25
"""Connection Attempt Delay of RFC 8305 section 8."""

SHORTAGES: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}
)
"""Errors because this process has no sockets, ports, threads or memory left; no destination is
at fault."""


class _Loop:
    """The running loop for ``start_connection``, with the failures of ``sock_connect`` kept."""

    def __init__(self, failures: list[OSError]) -> None:
        self._loop = asyncio.get_running_loop()
        self._failures = failures

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        try:
            await self._loop.sock_connect(sock, address)
        except OSError as error:
            self._failures.append(error)
            raise


async def connect_first(addresses: Sequence[AddressInfo], failures: list[OSError]) -> socket.socket:
    """Connect to all addresses in turn, and give the first socket that is connected.

    Args:
        addresses: The addresses, best first.
        failures: Receives the failure of each address, also when the race is cancelled.

    Raises:
        OSError: No address accepted; ``decisive(failures)`` is the failure that counts.
    """

    def make_socket(address: AddressInfo) -> socket.socket:
        family, kind, protocol, _, _ = address
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            failures.append(error)
            raise
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return sock

    return await start_connection(
        addresses,
        happy_eyeballs_delay=STEP_SECONDS,
        loop=cast(asyncio.AbstractEventLoop, _Loop(failures)),
        socket_factory=make_socket,
    )


def decisive(failures: Sequence[OSError]) -> OSError | None:
    """Choose the failure that a dial is reported with.

    A shortage of this process comes first, then a refused connection, then the first failure.
    ``EADDRNOTAVAIL`` beside other failures is no shortage: a machine without IPv6 has it for
    each IPv6 address.

    Args:
        failures: The failures of the addresses; empty if none has failed yet.
    """
    for failure in failures:
        if failure.errno in SHORTAGES and failure.errno != errno.EADDRNOTAVAIL:
            return failure
    for failure in failures:
        if isinstance(failure, ConnectionRefusedError):
            return failure
    for failure in failures:
        if failure.errno != errno.EADDRNOTAVAIL:
            return failure
    return failures[0] if failures else None
