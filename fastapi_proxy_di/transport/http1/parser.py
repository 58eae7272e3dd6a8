"""One llhttp parser for the responses of one connection.

Making a parser costs eight objects, so a connection uses one parser for all its responses. The
parser is made anew after a response to HEAD, for which llhttp expects a body. After any other
response that did not end cleanly the connection is not used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httptools

from fastapi_proxy_di.wire.headers import Headers, LowerNames

if TYPE_CHECKING:
    from fastapi_proxy_di.transport.http1.exchange import Http1Exchange

_LOWER: Final = LowerNames()


class ResponseParser:
    """Passes the events of llhttp to the current exchange.

    Attributes:
        exchange: The exchange whose response is parsed. Set before any bytes are fed.
        headers: The list that receives the headers of the head, later the trailers. Replaced
            at the beginning of each message.
        llhttp: The parser of httptools, which gets the bytes.
    """

    __slots__ = ("exchange", "headers", "llhttp")

    exchange: Http1Exchange
    headers: Headers

    def __init__(self) -> None:
        self.llhttp: Any = httptools.HttpResponseParser(self)

    def renew(self) -> None:
        """Replace the llhttp parser by a new one."""
        self.llhttp = httptools.HttpResponseParser(self)

    # -- what httptools calls -----------------------------------------------------------

    def on_message_begin(self) -> None:
        self.headers = self.exchange.message_begins()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((_LOWER[name], value))

    def on_headers_complete(self) -> None:
        llhttp = self.llhttp
        self.headers = self.exchange.head_complete(
            llhttp.get_status_code(), llhttp.get_http_version()
        )

    def on_body(self, body: bytes) -> None:
        self.exchange.body_piece(body)

    def on_message_complete(self) -> None:
        self.exchange.message_complete(self.llhttp.should_keep_alive())
