"""Watches the calls of an upstream's clients, with the timeouts that the caller gave."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import httpx

from fastapi_proxy_di.client.httpx_errors import HttpxErrors
from fastapi_proxy_di.errors import Failure, LimitExceeded, ProxyError, UpstreamTimeout
from fastapi_proxy_di.forwarding.deadlines import Deadlines
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.watcher import Watcher
from fastapi_proxy_di.settings import UpstreamSettings

__all__ = ["CallerWatcher"]

T = TypeVar("T")


class CallerWatcher(Watcher):
    """Watches one call of the app with the caller's timeouts.

    A caller's timeout that is shorter than that of the settings ends the request and counts
    against no destination.

    Args:
        settings: The settings of the upstream.
        request: The request of httpx, with the caller's timeouts.
        errors: Makes exceptions of httpx.
    """

    __slots__ = ("_caller_is_shorter", "_errors", "_limits", "_request")

    def __init__(
        self, settings: UpstreamSettings, request: httpx.Request, errors: HttpxErrors
    ) -> None:
        timeouts = request.extensions.get("timeout") or {}
        own = settings.timeouts
        read, connect = timeouts.get("read", own.activity), timeouts.get("connect")
        super().__init__(settings.name, Deadlines.of(own)._replace(activity=read))
        self._caller_is_shorter = read is not None and read < own.activity
        self._limits = {
            "dial": None if connect is None or connect >= own.connect else connect,
            "queue": timeouts.get("pool"),
        }
        self._request = request
        self._errors = errors

    async def run(self, exchange: Exchange, coroutine: Coroutine[Any, Any, T], what: str) -> T:
        """Await ``coroutine`` as `Watcher.run` does, within the caller's timeout for ``what``."""
        try:
            async with asyncio.timeout(self._limits.get(what)) as scope:
                return await super().run(exchange, coroutine, what)
        except TimeoutError:
            if not scope.expired():
                raise
            if what == "queue":
                refusal = LimitExceeded("no place in the queue became free in time")
                refusal.upstream = self._name
                refusal.limit = "limits.queue"
                raise self._errors.make(refusal, self._request) from refusal
            error = _caller_timeout("no connection before the caller's timeout")
            raise self._errors.make(error, self._request, "ConnectTimeout") from error

    def _timed_out(self, exchange: Exchange, failure: Failure) -> ProxyError:
        error = super()._timed_out(exchange, failure)
        if self._caller_is_shorter and error.failure is Failure.ACTIVITY_TIMEOUT:
            return _caller_timeout("the caller's timeout ran out")
        return error


def _caller_timeout(text: str) -> UpstreamTimeout:
    """Make a timeout error that is no failure of a destination and is not retried."""
    return UpstreamTimeout(text, failure=Failure.TOTAL_TIMEOUT)
