"""One llhttp parser for the responses of one connection.

Making a parser costs eight objects, so a connection keeps its own from response to response.
It is made anew where llhttp's state may be off: after a response to HEAD, which it takes to
have a body. A connection that ended a response in any unclean way is never used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httptools

from fastapi_proxy_di.wire.headers import Headers, LowerNames

if TYPE_CHECKING:
    from fastapi_proxy_di.transport.http1.exchange import Http1Exchange

_LOWER: Final = LowerNames()


class ResponseParser:
    """Feeds what llhttp finds to the exchange of the moment.

    Attributes:
        exchange: Whose response is parsed. Set before anything is fed.
        headers: Takes the headers as they come: those of the head, later the trailers. Set
            where a message begins.
        llhttp: Takes the bytes; raises what httptools raises.
    """

    __slots__ = ("exchange", "headers", "llhttp")

    exchange: Http1Exchange
    headers: Headers

    def __init__(self) -> None:
        self.llhttp: Any = httptools.HttpResponseParser(self)

    def renew(self) -> None:
        """Forget all state."""
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
