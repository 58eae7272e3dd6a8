"""One request and its answer on an HTTP/1.1 connection.

Parsing is httptools (llhttp); what it lets pass is refused here: a transfer coding
other than ``chunked`` alone, a final status outside 200-599, an endless head. The parser
is the connection's, and made anew after HEAD: llhttp waits for the body of its answer.
Reading, writing and flow control of the socket belong to ``connection``.

It is long because the request's body and the answer share one fate: each may end before the
other, and whether the connection may serve again depends on both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Final

import httptools

from fastapi_proxy_di.errors import (
    Failure,
    UpstreamDisconnected,
    UpstreamProtocolError,
)
from fastapi_proxy_di.transport.http1.parser import ResponseParser
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.headers import FRAMING, list_members

if TYPE_CHECKING:
    from fastapi_proxy_di.transport.http1.connection import Http1Connection

BODY_HIGH_WATER_BYTES: Final = 65536
"""Buffered answer bytes at which reading from the destination pauses."""

_VERSIONS: Final = frozenset({"1.1", "1.0"})


class _Ready:
    """An awaitable that does not wait."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_READY: Final = _Ready()


class Http1Exchange:
    """An `TransportExchange` on one connection; see there for the meaning of its members."""

    # Defaults on the class: an ordinary exchange never touches most of them, and what it does
    # not make is nothing for the collector to look at.
    status: int = 0
    answered: bool = False
    complete: bool = False
    on_informational: Callable[[int, Headers], None] | None = None
    _head_bytes = 0  # of the head, later since the last piece of the body
    _trailer_bytes = 0
    _informational = False
    _keep_alive = False
    _stray = False
    _buffered = 0
    _error: BaseException | None = None
    _waiter: asyncio.Future[None] | None = None
    _head_waiter: asyncio.Future[None] | None = None
    _continue: asyncio.Future[None] | None = None
    _asked = False
    _finished = True
    _chunked_request = False
    _remaining = 0
    _first_chunk: bytes | None = None
    _chunks: list[bytes] | None = None
    headers: Headers = []  # noqa: RUF012  # replaced when an answer begins, never changed
    trailers: Headers = []  # noqa: RUF012  # the same

    def __init__(
        self,
        connection: Http1Connection,
        *,
        bodyless: bool,
        upgrade: bool,
        header_limit: int,
        reused: bool,
        now: float,
        parser: ResponseParser,
    ) -> None:
        self.reused = reused
        self.last_activity: float = now
        self._connection: Http1Connection | None = connection
        self._loop = connection.loop
        self._bodyless = bodyless
        self._upgrade = upgrade
        self._header_limit = header_limit
        self._parser: ResponseParser | None = parser
        parser.exchange = self

    # -- what the forwarder calls ---------------------------------------------------

    def head(self) -> Awaitable[None]:
        if self.status:
            return _READY
        if self._error is not None:
            raise self._error
        self._head_waiter = self._loop.create_future()
        return self._head_waiter

    async def read(self) -> bytes:
        while True:
            if self._buffered:
                self._buffered = 0
                return self._joined()
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            # Only now, not when the last piece was taken: while that one waits for a slow
            # client, a further one would only be held.
            if self._connection is not None and self._connection.read_paused:
                self._connection.resume_reading()
            waiter = self._waiter = self._loop.create_future()
            await waiter

    async def continued(self) -> None:
        """Wait until the destination asks for the body (100), answers, or breaks off."""
        if not self._asked and not self.status and self._error is None:
            self._continue = self._loop.create_future()
            await self._continue

    def offer(self, data: bytes) -> bool:
        if self._error is not None:
            raise self._error
        connection = self._connection
        if connection is None or not data:
            return True
        if self._chunked_request:
            connection.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._remaining -= len(data)
            if self._remaining < 0:
                # More would be read as the next request: RFC 9112 section 6.3.
                raise ValueError("the request body is longer than its Content-Length")
            connection.write(data)
        self.last_activity = self._loop.time()
        return not connection.write_paused

    async def drain(self) -> None:
        connection = self._connection
        if connection is not None and connection.write_paused:
            await connection.drain()
            self.last_activity = self._loop.time()
        if self._error is not None:
            raise self._error

    async def write(self, data: bytes) -> None:
        self.offer(data)
        await self.drain()

    def finish(self) -> None:
        connection = self._connection
        if connection is None or self._finished:
            return
        if self._chunked_request:
            connection.write(b"0\r\n\r\n")
        elif self._remaining:
            raise ValueError("the request body is shorter than its Content-Length")
        self._finished = True

    def fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.abort()
        self._wake()

    def close(self) -> None:
        parser, self._parser = self._parser, None
        connection, self._connection = self._connection, None
        if parser is None or connection is None:
            return
        if self.complete and self._finished and self._keep_alive and not self._stray:
            # An idle connection must not hold its last answer: a thousand of them are ten
            # thousand objects for the collector to look at, and cold when they go.
            del parser.exchange, parser.fields
            if self._bodyless:
                parser.renew()
            connection.release()
        else:
            connection.abort()

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        """After a 101: hand over the socket and what has been read past the head."""
        connection = self._connection
        if connection is None:
            raise self._error or UpstreamDisconnected("the connection is gone")
        self._connection = None
        return connection.detach(), self._joined()

    @property
    def stalled_by_reader(self) -> bool:
        """Whether reading is paused because nobody takes what has arrived."""
        return self._connection is not None and self._connection.read_paused

    # -- what the connection calls --------------------------------------------------

    def expect_body(self, *, chunked: bool, length: int) -> None:
        """A body will follow through ``write`` and ``finish``."""
        self._finished = False
        self._chunked_request = chunked
        self._remaining = length

    def feed(self, data: memoryview, now: float) -> None:
        """Take bytes from the destination."""
        parser = self._parser
        assert parser is not None, "a connection feeds no exchange that has been closed"
        self.answered = True
        self.last_activity = now
        self._head_bytes += len(data)
        if self._head_bytes > self._header_limit or self._bodyless:
            self._feed_closely(parser, data)
        else:
            self._parse(parser, data)
        self._wake()

    def ended(self, error: Exception | None) -> None:
        """The destination closed (``None``) or broke the connection."""
        if self.complete:
            return
        if error is None and self.status and self._close_delimited():
            # RFC 9112 section 6.3 rule 8: the length is what came before the close.
            self.complete = True
        elif self._error is None:
            failure = Failure.RESPONSE_BODY if self.status else Failure.RESPONSE_HEAD
            if not self.status and not self._finished:
                failure = Failure.REQUEST_WRITE
            self._error = UpstreamDisconnected(
                "the destination closed the connection "
                + ("within its answer" if self.answered else "without an answer"),
                failure=failure,
            )
            self._error.__cause__ = error
        self._wake()

    def _feed_closely(self, parser: ResponseParser, data: memoryview) -> None:
        """Parse what may exceed the limit of the head, or what must end with the head."""
        surplus = self._head_bytes - self._header_limit
        parse = self._parse_head if self._bodyless else self._parse
        begun = self.status != 0
        if surplus > 0 and not begun:
            # The head must end before the limit; what lies behind it may be body.
            parse(parser, data[:-surplus])
            if self.status:
                parse(parser, data[-surplus:])
        else:
            parse(parser, data)
        # What lies behind a 101 is the new protocol's, and none of it is a header.
        if self._head_bytes > self._header_limit and not self.complete and self.status != 101:
            what = "what surrounds the body" if self.status else "the header"
            self._malformed(f"{what} is larger than {self._header_limit} bytes")

    def _parse(self, parser: ResponseParser, data: memoryview) -> None:
        if self.status == 101:
            self._keep(bytes(data))  # the new protocol's
            return
        try:
            parser.llhttp.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._keep(bytes(data[upgrade.args[0] :]))
            # The next read is the new protocol's, a close that follows at once too.
            if self._connection is not None:
                self._connection.pause_reading()
        except httptools.HttpParserError as error:
            self._malformed(str(error))

    def _parse_head(self, parser: ResponseParser, data: memoryview) -> None:
        """Parse line by line: llhttp must not see what lies behind an answer to HEAD."""
        rest = bytes(data)
        while rest and not self.complete and self._error is None:
            line, end, rest = rest.partition(b"\n")
            self._parse(parser, memoryview(line + end))
        self._stray = self._stray or bool(rest)

    # -- what the parser calls --------------------------------------------------------

    def message_begins(self) -> Headers:
        """A status line begins: of the answer, of a 1xx before it, or behind the answer.

        Returns:
            Where the fields that follow belong.
        """
        if self.complete or self._error is not None:
            self._stray = True
            return []
        self.headers = []
        return self.headers

    def head_complete(self, status: int, version: str) -> Headers:
        """Status and headers are there: of the answer, or of a 1xx before it.

        Returns:
            Where the fields that follow belong.
        """
        if self.complete or self._error is not None:
            self._stray = True  # behind the answer, or behind what made it malformed
            return []
        if 100 <= status < 200 and not (status == 101 and self._upgrade and self._switches()):
            self._informational = True
            headers = self.headers
            if status == 101:
                self._malformed("101 Switching Protocols that was not asked for or names none")
                return []
            if any(name == b"transfer-encoding" for name, _ in headers):
                # RFC 9112 section 6.1: forbidden, and some would read a body here.
                self._malformed("Transfer-Encoding on a 1xx answer")
                return []
            if status == 100:
                self._asked = True
                self._release_body()
            if self.on_informational is not None:
                self.on_informational(status, headers)
            return []
        if not 100 < status < 600 or version not in _VERSIONS:
            self._malformed(f"status {status} or its HTTP version is not valid")
            return []
        coded = False
        for name, value in self.headers:
            if name == b"transfer-encoding":
                # llhttp reads "chunked, gzip", "xchunked" and "chunked\t" as close-delimited
                # bodies; of the whitespace around it only spaces mean nothing to it.
                if coded or value.strip(b" ").lower() != b"chunked":
                    self._malformed("Transfer-Encoding other than chunked alone")
                    return []
                coded = True
        if coded and version == "1.0":
            self._stray = True  # RFC 9112 section 6.1: its framing is faulty
        self.status = status
        if self._bodyless:
            # llhttp now waits for a body that will not come; whether the connection may live
            # on is what an answer with a body would say.
            self._complete(version == "1.1" and not self._wants_close())
        self.trailers = []
        return self.trailers

    def body_piece(self, body: bytes) -> None:
        """Some of the body."""
        if self.complete or self._informational:
            self._stray = True
            return
        self._keep(body)
        self._head_bytes = 0  # what surrounds the pieces of a body is bounded piece by piece
        self._buffered += len(body)
        if self._buffered >= BODY_HIGH_WATER_BYTES and self._connection is not None:
            self._connection.pause_reading()

    def message_complete(self, keep_alive: bool) -> None:
        """The message is whole: the answer, or a 1xx before it."""
        if self._informational:
            self._informational = False
        elif self.status and self.status != 101:
            if self.trailers and any(name in FRAMING for name, _ in self.trailers):
                self._stray = True  # RFC 9110 section 6.5.1: none of a trailer's business
            self._complete(keep_alive)

    # -- inside ---------------------------------------------------------------------

    def _complete(self, keep_alive: bool) -> None:
        if not self.complete and self._error is None:
            self.complete = True
            self._keep_alive = keep_alive

    def _switches(self) -> bool:
        return b"upgrade" in list_members(self.headers, b"connection") and any(
            name == b"upgrade" for name, _ in self.headers
        )

    def _wants_close(self) -> bool:
        return b"close" in list_members(self.headers, b"connection")

    def _close_delimited(self) -> bool:
        return not any(
            name == b"content-length" or name == b"transfer-encoding" for name, _ in self.headers
        )

    def _malformed(self, reason: str) -> None:
        if self.complete:
            self._stray = True
            return
        self.fail(
            UpstreamProtocolError(
                f"malformed answer: {reason}",
                failure=Failure.RESPONSE_BODY if self.status else Failure.RESPONSE_MALFORMED,
            )
        )

    def _keep(self, chunk: bytes) -> None:
        if self._first_chunk is None:
            self._first_chunk = chunk
        elif self._chunks is None:
            self._chunks = [self._first_chunk, chunk]
        else:
            self._chunks.append(chunk)

    def _joined(self) -> bytes:
        """All that was kept. The pieces of one read mostly are one piece."""
        data = self._first_chunk if self._chunks is None else b"".join(self._chunks)
        self._first_chunk = self._chunks = None
        return data or b""

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        waiter = self._head_waiter
        if waiter is not None and not waiter.done():
            if self.status:
                waiter.set_result(None)
            elif self._error is not None:
                waiter.set_exception(self._error)
        if self._continue is not None and (self._error is not None or self.status):
            self._release_body()

    def _release_body(self) -> None:
        if self._continue is not None and not self._continue.done():
            self._continue.set_result(None)
