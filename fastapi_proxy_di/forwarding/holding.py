"""Forwards HTTP requests where streams are held: keeps larger bodies until the first event.

A request whose stream fails before its first event can only be sent again with its whole body,
so up to ``streams.replay_bytes`` of it are kept until its response may be passed on. All kept
bodies of the process together have at most ``limits.replay_total_bytes``.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

from fastapi_proxy_di.balancing.affinity import Binding
from fastapi_proxy_di.forwarding.body_keys import BodyKeys
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.http import HttpForwarder
from fastapi_proxy_di.forwarding.journey import Journey
from fastapi_proxy_di.forwarding.request import RequestBuilder
from fastapi_proxy_di.forwarding.response import LocalResponse, UpstreamResponse
from fastapi_proxy_di.forwarding.response_headers import ResponseHeaders
from fastapi_proxy_di.settings import UpstreamSettings

__all__ = ["KEPT_BODIES", "HoldingForwarder", "KeptBodies", "http_forwarder"]


class KeptBodies:
    """Counts the bytes of the bodies that are kept for another attempt.

    Attributes:
        size: Number of bytes.
    """

    def __init__(self) -> None:
        self.size: int = 0
        self._lock: Final = Lock()  # apps may run in several threads of a process

    def take(self, size: int, total: int) -> bool:
        """Count a body of ``size`` bytes; return false if there were more than ``total`` then."""
        with self._lock:
            if self.size + size > total:
                return False
            self.size += size
        return True

    def give_back(self, size: int) -> None:
        """Count a body no longer."""
        with self._lock:
            self.size -= size


KEPT_BODIES: Final = KeptBodies()
"""The bodies of this process, of all its upstreams."""


class HoldingForwarder(HttpForwarder):
    """An `HttpForwarder` for upstreams whose streams are held; see there for the arguments."""

    def __init__(
        self,
        settings: UpstreamSettings,
        journey: Journey,
        builder: RequestBuilder,
        response_headers: ResponseHeaders,
        binding: Binding | None = None,
        body_keys: BodyKeys | None = None,
    ) -> None:
        super().__init__(settings, journey, builder, response_headers, binding, body_keys)
        self._replay_bytes: Final = settings.streams.replay_bytes
        self._total_bytes: Final = settings.limits.replay_total_bytes
        self._retry: Final = settings.streams.retry
        self._counted: Final[dict[Exchange, int]] = {}

    async def forward(
        self, exchange: Exchange, cached_body: bytes | None = None
    ) -> UpstreamResponse | LocalResponse:
        try:
            response = await super().forward(exchange, cached_body)
        finally:
            size = self._counted.pop(exchange, 0)
            if size:
                KEPT_BODIES.give_back(size)
        if exchange.body is not None:
            exchange.body.release()
        return response

    def _retain(self, exchange: Exchange) -> int:
        retain = super()._retain(exchange)
        size = self._replay_bytes if exchange.length is None else exchange.length
        may_repeat = exchange.repeatable or (self._retry and exchange.method == b"POST")
        if (
            not may_repeat
            or not retain < size <= self._replay_bytes
            or not KEPT_BODIES.take(size, self._total_bytes)
        ):
            return retain
        self._counted[exchange] = size
        return size


def http_forwarder(
    settings: UpstreamSettings,
    journey: Journey,
    builder: RequestBuilder,
    response_headers: ResponseHeaders,
    binding: Binding | None,
    body_keys: BodyKeys | None,
) -> HttpForwarder:
    """Give the forwarder of an upstream; see `HttpForwarder` for the arguments."""
    make = HttpForwarder if settings.streams.first_event is None else HoldingForwarder
    return make(settings, journey, builder, response_headers, binding, body_keys)
