"""Base class of the transports' exchanges: waiting for the response, and its failures.

The class holds the futures of ``head``, ``read`` and ``continued``, in each of which one task
at a time may wait, and the pieces of the body that are not read yet. It makes the errors of
responses that broke off or are malformed. Sockets, streams and apps are left to the transports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, cast

from fastapi_proxy_di.errors import Failure, UpstreamDisconnected, UpstreamProtocolError
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.transport.signal import wake

BODY_HIGH_WATER_BYTES: Final = 65536
"""Unread bytes of a response from which on its reader counts as slow, and the sender waits."""


class _Ready:
    """An awaitable that does not wait."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_READY: Final = _Ready()


class BaseExchange:
    """The part of a `TransportExchange` that all transports share; see there for its members.

    The class has no constructor. Each transport sets the first three attributes in its own
    constructor, which saves a call per request.
    """

    reused: bool
    last_activity: float
    _loop: asyncio.AbstractEventLoop

    # Defaults on the class: an ordinary exchange sets only few of them, and the garbage
    # collector has fewer objects to visit.
    status: int = 0
    # Tuples, because all exchanges share them: changing one in place must fail.
    headers: Headers = cast(Headers, ())
    trailers: Headers = cast(Headers, ())
    answered: bool = False
    complete: bool = False
    on_informational: Callable[[int, Headers], None] | None = None
    _error: BaseException | None = None
    _body_wanted = False  # by the destination, which sent 100 Continue
    _head_waiter: asyncio.Future[None] | None = None
    _read_waiter: asyncio.Future[None] | None = None
    _continue_waiter: asyncio.Future[None] | None = None
    _first_piece: bytes | None = None
    _pieces: list[bytes] | None = None
    _buffered = 0

    # -- what the forwarder calls -----------------------------------------------------

    def head(self) -> Awaitable[None]:
        if self.status:
            return _READY
        if self._error is not None:
            raise self._error
        self._head_waiter = self._loop.create_future()
        return self._head_waiter

    async def read(self) -> bytes:
        while not self._buffered:
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            self._resume_response()
            self._read_waiter = self._loop.create_future()
            await self._read_waiter
        return self._take()

    def unread(self, data: bytes) -> None:
        data += self._take() if self._buffered else b""
        if data:
            self._keep(data)
            self._buffered = len(data)

    async def continued(self) -> None:
        if not self._body_wanted and not self.status and self._error is None:
            self._continue_waiter = self._loop.create_future()
            await self._continue_waiter

    def offer(self, data: bytes) -> bool:
        raise NotImplementedError

    async def drain(self) -> None:
        raise NotImplementedError

    async def write(self, data: bytes) -> None:
        self.offer(data)
        await self.drain()

    def fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._let_go()
        self._wake()

    # -- what a transport adds --------------------------------------------------------

    def _resume_response(self) -> None:
        """Let the destination send more of the response: all pieces that arrived are read."""

    def _let_go(self) -> None:
        """Close the connection, because the exchange has failed."""
        raise NotImplementedError

    # -- what a transport uses --------------------------------------------------------

    def _keep(self, piece: bytes) -> None:
        """Store a piece of the response body for ``read``; the caller counts its bytes."""
        if self._first_piece is None:
            self._first_piece = piece
        elif self._pieces is None:
            self._pieces = [self._first_piece, piece]
        else:
            self._pieces.append(piece)

    def _take(self) -> bytes:
        """Return all stored pieces of the body as one; mostly there is only one."""
        self._buffered = 0
        piece, self._first_piece = self._first_piece, None
        if self._pieces is None:
            return piece or b""
        pieces, self._pieces = self._pieces, None
        return b"".join(pieces)

    def _wake(self) -> None:
        """Wake the tasks that wait for a head, a piece of the body, its end, or an error."""
        waiter = self._read_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        waiter = self._head_waiter
        if waiter is not None and not waiter.done():
            if self.status:
                waiter.set_result(None)
            elif self._error is not None:
                waiter.set_exception(self._error)
        if self._continue_waiter is not None and (self._error is not None or self.status):
            self._release_body()

    def _release_body(self) -> None:
        wake(self._continue_waiter)

    def _malformed(self, reason: str) -> None:
        """Fail the exchange because the destination sent a malformed response."""
        failure = Failure.RESPONSE_BODY if self.status else Failure.RESPONSE_MALFORMED
        self.fail(UpstreamProtocolError(f"malformed response: {reason}", failure=failure))

    def _disconnected(
        self, what: str, cause: BaseException | None, *, sending: bool = False
    ) -> UpstreamDisconnected:
        """Make the error of a response that broke off.

        Args:
            what: What the destination did, for the error's text.
            cause: The exception of the connection, if there was one.
            sending: Whether the request was still being sent.
        """
        failure = Failure.RESPONSE_BODY if self.status else Failure.RESPONSE_HEAD
        if sending and not self.status:
            failure = Failure.REQUEST_WRITE
        error = UpstreamDisconnected(what, failure=failure)
        error.__cause__ = cause
        return error
