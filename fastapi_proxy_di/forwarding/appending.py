"""Warns once if ``forwarded.mode=append`` is used behind a server that replaces peer addresses.

uvicorn replaces the address of the peer by the client in ``X-Forwarded-For``, with port 0. Then
the proxy appends that client once more, and cannot see whether the peer is trusted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.request import RequestBuilder

_logger = logging.getLogger("fastapi_proxy_di.forwarding")


class AppendingBuilder(RequestBuilder):
    """Request builder that logs one warning if the server has replaced the peer's address.

    Args:
        upstream: Name of the upstream, for the warning.
        **arguments: As for ``RequestBuilder``.
    """

    def __init__(self, upstream: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._upstream = upstream
        self._warned = False

    def build(self, exchange: Exchange, *, drop: Callable[[bytes], bool] | None = None) -> None:
        client = exchange.scope.get("client")
        if client and client[1] == 0 and not self._warned:
            self._warned = True
            _logger.warning(
                "%s: forwarded.mode is append, but the server has replaced the peer's address "
                "by one from a header (client port 0); start uvicorn with --no-proxy-headers, or "
                "use the mode set",
                self._upstream,
                extra={"upstream": self._upstream},
            )
        super().build(exchange, drop=drop)
