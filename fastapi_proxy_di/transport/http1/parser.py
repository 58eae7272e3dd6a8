"""One llhttp parser for the responses of one connection.

Making a parser costs eight objects, so a connection uses one parser for all its responses. The
parser is made anew after a response to HEAD, for which llhttp expects a body. After any other
response that did not end cleanly the connection is not used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httptools

from fastapi_proxy_di.wire.headers import BLANKS, Headers, LowerNames

if TYPE_CHECKING:
    from fastapi_proxy_di.transport.http1.exchange import Http1Exchange

_LOWER: Final = LowerNames()
_CODING: Final = b"transfer-encoding"


class ResponseParser:
    """Passes the events of llhttp to the current exchange.

    Attributes:
        coded: Whether the message has a Transfer-Encoding so far.
        exchange: The exchange whose response is parsed. Set before any bytes are fed.
        headers: The list that receives the headers of the head, later the trailers. Replaced
            at the beginning of each message.
        llhttp: The parser of httptools, which gets the bytes.
    """

    __slots__ = ("_strict", "coded", "exchange", "headers", "llhttp")

    coded: bool
    exchange: Http1Exchange
    headers: Headers

    def __init__(self) -> None:
        self.llhttp: Any = self._llhttp()

    def renew(self) -> None:
        """Replace the llhttp parser by a new one."""
        self.llhttp = self._llhttp()

    def _llhttp(self) -> Any:
        """Make a parser that reads two faults of devices, as nginx, curl and Go do.

        A line of the head may end with a bare LF (RFC 9112 §2.2), and spaces may stand behind a
        chunk size. The fuzzer (``tests/fuzz``) finds no response that h11 would end elsewhere.
        """
        self._strict = False
        llhttp = httptools.HttpResponseParser(self)
        llhttp.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        return llhttp

    def require_crlf(self) -> None:
        """Refuse a bare LF up to the end of this message: chunks are counted, not searched."""
        self._strict = True
        self.llhttp.set_dangerous_leniencies(lenient_optional_cr_before_lf=False)

    # -- what httptools calls -----------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._strict:
            self._strict = False
            self.llhttp.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)
        self.coded = False
        self.headers = self.exchange.message_begins()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = _LOWER[name]
        if name == _CODING:
            self.coded = True  # and is judged as llhttp has read it
        else:
            # RFC 9112 section 5.1: blanks around a value are no part of it; llhttp leaves those
            # at the end.
            value = value.strip(BLANKS)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        llhttp = self.llhttp
        self.headers = self.exchange.head_complete(
            llhttp.get_status_code(), llhttp.get_http_version(), coded=self.coded
        )

    def on_body(self, body: bytes) -> None:
        self.exchange.body_piece(body)

    def on_message_complete(self) -> None:
        self.exchange.message_complete(self.llhttp.should_keep_alive())
