"""One llhttp parser for the answers of one connection.

Making a parser costs eight objects, so a connection keeps its own from answer to answer.
It is made anew where llhttp's state may be off: after an answer to HEAD, which it takes to
have a body. A connection that ended an answer in any unclean way is never used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools

if TYPE_CHECKING:
    from fastapi_proxy_di.transport.http1.exchange import Http1Exchange


class AnswerParser:
    """Feeds what llhttp finds to the exchange of the moment.

    Attributes:
        exchange: Whose answer is parsed. Set before anything is fed.
    """

    __slots__ = ("_llhttp", "exchange")

    exchange: Http1Exchange

    def __init__(self) -> None:
        self._llhttp: Any = httptools.HttpResponseParser(self)

    def feed(self, data: memoryview) -> None:
        """Parse; raises what httptools raises."""
        self._llhttp.feed_data(data)

    def renew(self) -> None:
        """Forget all state."""
        self._llhttp = httptools.HttpResponseParser(self)

    # -- what httptools calls -----------------------------------------------------------

    def on_message_begin(self) -> None:
        self.exchange.message_begins()

    def on_header(self, name: bytes, value: bytes) -> None:
        exchange = self.exchange
        if exchange.status:
            exchange.trailer(name.lower(), value)
        else:
            exchange.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        llhttp = self._llhttp
        self.exchange.head_complete(llhttp.get_status_code(), llhttp.get_http_version())

    def on_body(self, body: bytes) -> None:
        self.exchange.body_piece(body)

    def on_message_complete(self) -> None:
        self.exchange.message_complete(self._llhttp.should_keep_alive())
