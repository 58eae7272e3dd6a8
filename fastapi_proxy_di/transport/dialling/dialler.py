"""Opens connections to one destination: TCP, TLS or a Unix socket, in bounded time.

Every transport with a socket uses a dialler, for requests, probes and WebSocket handshakes.
Exceptions of sockets and TLS are turned into the ``ProxyError`` tree only here. The connection
itself tells when it can carry a request (`DialledConnection.opened`).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

from fastapi_proxy_di.errors import (
    DestinationNotAllowed,
    Failure,
    LocalResourcesExhausted,
    ProxyError,
    UpstreamConnectError,
    UpstreamTimeout,
)
from fastapi_proxy_di.settings import TimeoutSettings
from fastapi_proxy_di.transport.dialling.known_name import AddressInfo, is_no_such_name
from fastapi_proxy_di.transport.dialling.race import SHORTAGES, connect_first, decisive
from fastapi_proxy_di.transport.dialling.resolver import numeric_addresses, resolver_of
from fastapi_proxy_di.wire.addresses import Address


class DialledConnection(asyncio.BaseProtocol, ABC):
    """A connection that a dialler opens: an asyncio protocol that tells when it can be used."""

    __slots__ = ()

    @abstractmethod
    async def opened(self) -> None:
        """Wait until a request may be written.

        Raises:
            OSError: The destination closed the connection.
            ProxyError: The destination does not speak the protocol.
        """

    @abstractmethod
    def abandon(self) -> None:
        """Close a connection that no request will use, even if it was never made."""


_Connection = TypeVar("_Connection", bound=DialledConnection)

Guard: TypeAlias = Callable[[str], str | None]
"""Says why no connection may be opened to an IP address; ``None`` if one may."""


class Dialler:
    """Opens connections to one address.

    Attributes:
        address: Where to connect.
        tls: Whether connections are encrypted.
        closed: Whether the upstream is shut down, so that no connection is opened.

    Args:
        address: Where to connect.
        ssl_context: The TLS context for ``https``, else ``None``.
        server_name: The server name to send and to check, ``None`` for the host of the address.
        timeouts: The timeouts of the upstream, for the connect timeout.
        failed: Called with the URL of the address each time a dial has failed.
        guard: Judges each IP address before each dial, ``None`` allows all. One that is refused
            refuses the dial.
    """

    def __init__(
        self,
        address: Address,
        ssl_context: ssl.SSLContext | None,
        server_name: str | None,
        timeouts: TimeoutSettings,
        failed: Callable[[str], None] | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.address: Address = address
        self.tls: bool = ssl_context is not None
        self.closed: bool = False
        self._ssl_context = ssl_context
        self._failed = failed
        self._guard = guard
        self._server_name = (server_name or address.server_name) if ssl_context else None
        self.configure(timeouts)
        self._loop = asyncio.get_running_loop()
        self._resolver = resolver_of(self._loop)
        self._numeric = numeric_addresses(address.host, address.port)
        self._under_way: set[asyncio.Timeout] = set()

    @property
    def dialling(self) -> bool:
        """Whether a connection is being opened."""
        return bool(self._under_way)

    def configure(self, timeouts: TimeoutSettings) -> None:
        """Use the timeouts of ``timeouts`` for later dials."""
        self._connect_seconds = timeouts.connect
        self._resolve_seconds = timeouts.connect if timeouts.resolve is None else timeouts.resolve

    async def dial(self, connection: _Connection) -> _Connection:
        """Connect ``connection`` and wait until it can be used.

        Raises:
            UpstreamConnectError: No connection, or the upstream is shut down.
            UpstreamTimeout: No connection in time.
            LocalResourcesExhausted: No socket of our own.
            DestinationNotAllowed: An IP address of the destination is refused.
        """
        self._refuse_if_closed()
        failures: list[OSError] = []
        deadline = asyncio.timeout(self._connect_seconds)
        try:
            async with deadline:
                self._under_way.add(deadline)
                try:
                    await self._connect(connection, failures)
                    await connection.opened()
                finally:
                    self._under_way.discard(deadline)
            self._refuse_if_closed()
        except (TimeoutError, OSError) as error:
            connection.abandon()
            self._refuse_if_closed()
            if self._failed is not None:
                self._failed(self.address.url)
            cause = decisive(failures) or error
            raise connect_error(cause, self.address.url) from cause
        except BaseException:
            connection.abandon()
            raise
        return connection

    def close(self) -> None:
        """Open no more connections; connections being opened are closed at once."""
        self.closed = True
        for deadline in self._under_way:
            deadline.reschedule(self._loop.time())

    async def _connect(self, protocol: asyncio.BaseProtocol, failures: list[OSError]) -> None:
        address, context, server_name = self.address, self._ssl_context, self._server_name
        if address.socket_path is not None:
            await self._loop.create_unix_connection(
                lambda: protocol, address.socket_path, ssl=context, server_hostname=server_name
            )
            return
        addresses = self._numeric
        if not addresses:
            try:
                addresses = await self._resolver.resolve(
                    address.host, address.port, self._resolve_seconds
                )
            except (TimeoutError, asyncio.CancelledError):
                failures.append(TimeoutError("the look-up of its name took too long"))
                raise
        if self._guard is not None:
            # Nothing is looked up between here and ``connect``, so no name can lead elsewhere.
            self._refuse_unless_allowed(addresses, self._guard)
        sock = await connect_first(addresses, failures)
        failures.clear()  # what follows fails for reasons of its own
        try:
            await self._loop.create_connection(
                lambda: protocol, sock=sock, ssl=context, server_hostname=server_name
            )
        finally:
            if not isinstance(self._loop, asyncio.BaseEventLoop):
                # uvloop takes the descriptor and closes it, also when this dial fails. The
                # socket object must not close it a second time: it may be another socket's then.
                sock.detach()

    def _refuse_unless_allowed(self, addresses: Iterable[AddressInfo], guard: Guard) -> None:
        for *_, (ip, *_) in addresses:
            reason = guard(ip)
            if reason is not None:
                raise DestinationNotAllowed(
                    f"{self.address.url} leads to {ip}, which is refused: {reason}"
                )

    def _refuse_if_closed(self) -> None:
        if self.closed:
            raise UpstreamConnectError("the upstream is shut down")


def connect_error(error: BaseException, url: str) -> ProxyError:
    """Map an exception of a dial to the ``ProxyError`` tree."""
    if isinstance(error, ProxyError):
        return error
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or error
        return UpstreamConnectError(f"TLS with {url} failed: {reason}", failure=Failure.TLS)
    if isinstance(error, TimeoutError):
        reason = f": {error}" if error.args else ""
        return UpstreamTimeout(
            f"no connection to {url} in time{reason}", failure=Failure.CONNECT_TIMEOUT
        )
    if isinstance(error, socket.gaierror):
        reason = "no such name" if is_no_such_name(error) else error.strerror
        return UpstreamConnectError(
            f"cannot resolve the host of {url}: {reason}", failure=Failure.RESOLVE
        )
    if isinstance(error, OSError) and error.errno in SHORTAGES:
        return LocalResourcesExhausted(f"no socket for a connection: {error.strerror}")
    return UpstreamConnectError(f"cannot connect to {url}: {error}")
