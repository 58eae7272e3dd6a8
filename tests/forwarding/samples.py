"""Exchanges for tests of single parts."""

from __future__ import annotations

from typing import Any

from starlette.types import Receive

from fastapi_proxy_di.forwarding.deadlines import Deadlines
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.watcher import Watcher
from fastapi_proxy_di.observability.metrics import Metrics
from fastapi_proxy_di.transport.protocol import TransportExchange

__all__ = ["NEVER", "exchange_with", "watched_exchange"]

NEVER = Deadlines(None, None, None)

SCOPE: dict[str, Any] = {"type": "http", "method": "GET", "query_string": b"", "headers": []}


def exchange_with(transport_exchange: TransportExchange) -> Exchange:
    """Make an exchange that has a response, without a client and a watcher."""
    exchange = Exchange(SCOPE, None, None, b"/", b"")
    exchange.transport_exchange = transport_exchange
    return exchange


def watched_exchange(
    receive: Receive | None, deadlines: Deadlines = NEVER, *, watcher: Watcher | None = None
) -> Exchange:
    """Make an exchange whose time runs, in the running loop."""
    exchange = Exchange(SCOPE, receive, None, b"/", b"")
    exchange.metrics = Metrics("billing")
    exchange.watcher = watcher or Watcher("billing", deadlines)
    exchange.watcher.start(exchange)
    return exchange
