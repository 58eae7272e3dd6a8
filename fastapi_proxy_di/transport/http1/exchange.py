"""One request and its response on an HTTP/1.1 connection.

The rules of the response, which the table ``_TRANSITIONS`` contains:

1. A response has any number of 1xx heads, then a final head, a body and an end. A response to
   HEAD ends with its final head. After a 101 to an upgrade request, all further bytes belong
   to the new protocol.
2. A complete response stays complete, a broken one stays broken.
3. An event that the table does not name for a state is surplus: it is dropped, and the
   connection is not used again, because the surplus would be taken for the next response.
4. The connection is used again if the response is complete, nothing was surplus or ambiguous,
   the destination keeps it open, and the whole request was sent.

httptools (llhttp) does the parsing. This file refuses what httptools accepts: transfer codings
other than ``chunked`` alone, a final status outside 200-599, an endless head. Reading, writing
and flow control of the socket are in ``connection``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import httptools

from fastapi_proxy_di.errors import UpstreamDisconnected
from fastapi_proxy_di.transport.exchange import BODY_HIGH_WATER_BYTES, BaseExchange
from fastapi_proxy_di.transport.http1.parser import ResponseParser
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.headers import FRAMING, list_members

if TYPE_CHECKING:
    from fastapi_proxy_di.transport.http1.connection import Http1Connection

_State: TypeAlias = Literal["head", "interim", "body", "switched", "whole", "broken"]
_HEAD: Final = "head"  # waiting for a status line or headers
_INTERIM: Final = "interim"  # the head of a 1xx has arrived, its end has not
_BODY: Final = "body"  # the final head has arrived
_SWITCHED: Final = "switched"  # after a 101
_WHOLE: Final = "whole"
_BROKEN: Final = "broken"

_Event: TypeAlias = Literal[
    "begin", "inform", "final", "only", "switch", "piece", "end", "close", "fail"
]
_BEGIN: Final = "begin"  # a status line begins
_INFORM: Final = "inform"  # the head of a 1xx
_FINAL: Final = "final"  # the head of the response
_ONLY: Final = "only"  # the head of a response to HEAD
_SWITCH: Final = "switch"  # the head of a 101 that was asked for
_PIECE: Final = "piece"  # a piece of the body
_END: Final = "end"  # of a message
_CLOSE: Final = "close"  # the destination closed, which ends a body without a length
_FAIL: Final = "fail"  # malformed bytes, a lost connection, a timeout

_TRANSITIONS: Final[dict[_State, dict[_Event, _State]]] = {
    _HEAD: {
        _BEGIN: _HEAD,
        _INFORM: _INTERIM,
        _FINAL: _BODY,
        _ONLY: _WHOLE,
        _SWITCH: _SWITCHED,
        _FAIL: _BROKEN,
    },
    _INTERIM: {_END: _HEAD, _FAIL: _BROKEN},
    _BODY: {_PIECE: _BODY, _END: _WHOLE, _CLOSE: _WHOLE, _FAIL: _BROKEN},
    _SWITCHED: {_PIECE: _SWITCHED, _END: _SWITCHED, _FAIL: _BROKEN},
    _WHOLE: {_END: _WHOLE},  # llhttp sees the end of a response to HEAD after we do
    _BROKEN: {_END: _BROKEN, _FAIL: _BROKEN},
}

_VERSIONS: Final = frozenset({"1.1", "1.0"})


class Http1Exchange(BaseExchange):
    """A `TransportExchange` on one connection; see there for the meaning of its members.

    Args:
        connection: The connection that carries the exchange.
        bodyless: Whether the request is HEAD, so that its response has no body.
        upgrade: Whether the request asks for another protocol.
        header_limit: Largest head of a response in bytes.
        reused: Whether the connection has served before.
        now: The loop's time.
        parser: The parser of the connection.
    """

    headers: Headers
    trailers: Headers
    complete: bool
    last_activity: float

    _state: _State = _HEAD
    _reusable = True  # so far
    _head_bytes = 0  # of the head, later since the last piece of the body
    _bodyless = False
    _upgrade = False
    # Whether the whole body of the request was sent, and how many bytes of it remain to be
    # sent; ``None`` for a chunked body.
    _sent = True
    _to_send: int | None = 0

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
        self.last_activity = now
        self._loop = connection.loop
        self._connection: Http1Connection | None = connection
        if bodyless:
            self._bodyless = True
        if upgrade:
            self._upgrade = True
        self._header_limit = header_limit
        self._parser: ResponseParser | None = parser
        parser.exchange = self

    # -- what the forwarder calls -----------------------------------------------------

    def offer(self, data: bytes) -> bool:
        if self._error is not None:
            raise self._error
        connection = self._connection
        if connection is None or not data:
            return True
        if self._to_send is None:
            connection.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._to_send -= len(data)
            if self._to_send < 0:
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

    def finish(self) -> None:
        connection = self._connection
        if connection is None or self._sent:
            return
        if self._to_send is None:
            connection.write(b"0\r\n\r\n")
        elif self._to_send:
            raise ValueError("the request body is shorter than its Content-Length")
        self._sent = True

    def close(self) -> None:
        parser, self._parser = self._parser, None
        connection, self._connection = self._connection, None
        if parser is None or connection is None:
            return
        if self._state is _WHOLE and self._reusable and self._sent:
            # An idle connection must not keep its last response: a thousand of them would be
            # ten thousand objects for the garbage collector to visit.
            del parser.exchange, parser.headers
            if self._bodyless:
                parser.renew()
            connection.release()
        else:
            connection.abort()

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        connection = self._connection
        if connection is None:
            raise self._error or UpstreamDisconnected("the connection is gone")
        self._connection = None
        return connection.detach(), self._take()

    @property
    def stalled_by_reader(self) -> bool:
        return self._connection is not None and self._connection.read_paused

    # -- what the connection calls ----------------------------------------------------

    def expect_body(self, *, chunked: bool, length: int) -> None:
        """Note that a body will follow through ``write`` and ``finish``."""
        self._sent = False
        self._to_send = None if chunked else length

    def feed(self, data: memoryview, now: float) -> None:
        """Take bytes from the destination."""
        parser = self._parser
        assert parser is not None, "a connection feeds no exchange that has been closed"
        self.answered = True
        self.last_activity = now
        self._head_bytes = size = self._head_bytes + len(data)
        if size > self._header_limit or self._bodyless:
            self._feed_closely(parser, data)
        else:
            self._parse(parser, data)
        self._wake()

    def ended(self, error: Exception | None) -> None:
        """Handle the end of the connection: closed (``None``) or broken by the destination."""
        if self.complete or self._state is _SWITCHED:
            # After a 101 the end belongs to the new protocol, like the bytes.
            return
        if error is None and self.status and self._close_delimited():
            # RFC 9112 section 6.3 rule 8: the body ends with the connection.
            self._reusable = False
            self._move(_CLOSE)
        elif self._error is None:
            what = "within its response" if self.answered else "without a response"
            self._error = self._disconnected(
                f"the destination closed the connection {what}", error, sending=not self._sent
            )
            self._move(_FAIL)
        self._wake()

    def _feed_closely(self, parser: ResponseParser, data: memoryview) -> None:
        """Parse bytes that may exceed the limit of the head, or that must end with the head."""
        surplus = self._head_bytes - self._header_limit
        parse = self._parse_lines if self._bodyless else self._parse
        begun = self.status != 0
        if surplus > 0 and not begun:
            # The head must end before the limit; the bytes behind it may belong to the body.
            parse(parser, data[:-surplus])
            if self.status:
                parse(parser, data[-surplus:])
        else:
            parse(parser, data)
        # The bytes behind a 101 belong to the new protocol, and none of them is a header.
        if self._head_bytes > self._header_limit and self._state not in {_WHOLE, _SWITCHED}:
            what = "what surrounds the body" if self.status else "the header"
            self._malformed(f"{what} is over limits.max_response_header_bytes={self._header_limit}")

    def _parse(self, parser: ResponseParser, data: memoryview) -> None:
        if self._state is _SWITCHED:
            self._keep(bytes(data))  # for the new protocol
            return
        try:
            parser.llhttp.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._keep(bytes(data[upgrade.args[0] :]))
            # The new protocol does the next read, and also sees a close that follows at once.
            if self._connection is not None:
                self._connection.pause_reading()
        except httptools.HttpParserError as error:
            self._malformed(str(error))

    def _parse_lines(self, parser: ResponseParser, data: memoryview) -> None:
        """Parse line by line: llhttp must not see what lies behind a response to HEAD."""
        rest = bytes(data)
        while rest and self._state not in {_WHOLE, _BROKEN}:
            line, end, rest = rest.partition(b"\n")
            self._parse(parser, memoryview(line + end))
        if rest:
            self._reusable = False

    # -- what the parser calls --------------------------------------------------------

    def message_begins(self) -> Headers:
        """Handle the beginning of a status line: of the response, of a 1xx, or behind both.

        Returns:
            The list that receives the headers that follow.
        """
        if self._state is not _HEAD and self._move(_BEGIN) is None:
            return []
        self.headers = []
        return self.headers

    def head_complete(self, status: int, version: str, *, coded: bool) -> Headers:
        """Handle the end of a head, whose headers are in ``headers``.

        ``coded`` is whether Transfer-Encoding is among them.

        Returns:
            The list that receives the headers that follow, which are trailers.
        """
        if self._state is not _HEAD:
            self._reusable = False  # behind the response, or behind what made it malformed
            return []
        if 100 <= status < 200 and not (status == 101 and self._upgrade and self._switches()):
            self._interim(status)
            return []
        if not 100 < status < 600 or version not in _VERSIONS:
            self._malformed(f"status {status} or its HTTP version is not valid")
            return []
        if coded:
            codings = [value for name, value in self.headers if name == b"transfer-encoding"]
            # llhttp reads "chunked, gzip", "xchunked" and "chunked\t" as close-delimited bodies; of
            # the whitespace around it only spaces mean nothing to it.
            if len(codings) > 1 or codings[0].strip(b" ").lower() != b"chunked":
                self._malformed("Transfer-Encoding other than chunked alone")
                return []
            if version == "1.0":
                self._reusable = False  # RFC 9112 section 6.1: its framing is faulty
            assert self._parser is not None, "the parser calls no exchange that has been closed"
            self._parser.require_crlf()
        self.status = status
        if self._bodyless:
            # llhttp now waits for a body that will not come, so whether the destination keeps
            # the connection open is decided as for a response with a body.
            if version != "1.1" or b"close" in list_members(self.headers, b"connection"):
                self._reusable = False
            self._move(_ONLY)
        else:
            self._move(_SWITCH if status == 101 else _FINAL)
        self.trailers = []
        return self.trailers

    def body_piece(self, body: bytes) -> None:
        """Handle a piece of the body."""
        if self._state is not _BODY and self._move(_PIECE) is None:
            return
        if self._first_piece is None:
            self._first_piece = body
        else:
            self._keep(body)
        self._head_bytes = 0  # the bytes between two pieces of a body have the same limit
        self._buffered += len(body)
        if self._buffered >= BODY_HIGH_WATER_BYTES and self._connection is not None:
            self._connection.pause_reading()

    def message_complete(self, keep_alive: bool) -> None:
        """Handle the end of a message: of the response, or of a 1xx before it."""
        if self._state is _BODY and (
            not keep_alive
            # RFC 9110 section 6.5.1: a trailer must not frame the message.
            or (self.trailers and any(name in FRAMING for name, _ in self.trailers))
        ):
            self._reusable = False
        self._move(_END)

    # -- inside -----------------------------------------------------------------------

    def _move(self, event: _Event) -> _State | None:
        """Change the state according to ``_TRANSITIONS``.

        Returns:
            The new state; ``None`` if the event is surplus.
        """
        state = _TRANSITIONS[self._state].get(event)
        if state is None:
            self._reusable = False
        else:
            self._state = state
            self.complete = state is _WHOLE
        return state

    def _interim(self, status: int) -> None:
        """Handle the head of a 1xx."""
        self._move(_INFORM)
        if status == 101:
            self._malformed("101 Switching Protocols that was not asked for or names none")
        elif any(name == b"transfer-encoding" for name, _ in self.headers):
            # RFC 9112 section 6.1 forbids it, and some parsers would read a body here.
            self._malformed("Transfer-Encoding on a 1xx response")
        else:
            if status == 100:
                self._body_wanted = True
                self._release_body()
            if self.on_informational is not None:
                self.on_informational(status, self.headers)

    def _switches(self) -> bool:
        return b"upgrade" in list_members(self.headers, b"connection") and any(
            name == b"upgrade" for name, _ in self.headers
        )

    def _close_delimited(self) -> bool:
        return not any(
            name == b"content-length" or name == b"transfer-encoding" for name, _ in self.headers
        )

    def _malformed(self, reason: str) -> None:
        if self.complete:
            self._reusable = False
        else:
            super()._malformed(reason)

    def _resume_response(self) -> None:
        # Only when more is asked for, not when the last piece was read: while that piece waits
        # for a slow client, a further piece would only be kept in memory.
        if self._connection is not None and self._connection.read_paused:
            self._connection.resume_reading()

    def _let_go(self) -> None:
        self._move(_FAIL)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
