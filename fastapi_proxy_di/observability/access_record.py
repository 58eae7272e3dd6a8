"""One access record for each exchange, and why its destinations were picked, where wanted.

Without a listener nothing of this runs: ``Records.begin`` gives ``None``. The record goes
to the logger ``fastapi_proxy_di.access`` at INFO, with its fields as extra attributes:

``upstream``, ``destination`` (the last one, ``None`` if none), ``attempts`` (of `Attempt`),
``protocol`` (``http`` or ``websocket``), ``method``, ``path`` (without the query), ``status``
(a tunnel's is 101), ``failure`` and ``ended_by`` (``complete``, ``client``, ``destination``
or ``proxy``), ``received_bytes`` and ``sent_bytes`` (bodies and messages, from and to the
client), ``head_ms`` and ``total_ms``; for tunnels also ``end`` and ``code``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine
from time import monotonic
from typing import Any, Final, Literal, TypeAlias, TypeVar

from starlette.types import Scope

from fastapi_proxy_di.errors import Attempt, ProxyError
from fastapi_proxy_di.forwarding.body import RequestBody
from fastapi_proxy_di.forwarding.tunnel import TunnelEnd, WebSocketEnd
from fastapi_proxy_di.observability.explain import explanation
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.transport.protocol import Headers, TransportExchange

__all__ = ["Finish", "Records", "Trace"]

EXPLAIN_HEADER: Final = b"x-proxy-explain"

_access = logging.getLogger("fastapi_proxy_di.access")
_explain = logging.getLogger("fastapi_proxy_di.explain")

Finish: TypeAlias = Callable[[BaseException | None], Awaitable[None] | None]
T = TypeVar("T")

_PROXY_ENDS: Final = frozenset({WebSocketEnd.DRAINED, WebSocketEnd.SHUTDOWN})
_CLIENT_ENDS: Final = frozenset({WebSocketEnd.CLIENT_CLOSED, WebSocketEnd.CLIENT_VANISHED})


class Records:
    """What is told about the exchanges of one upstream.

    Args:
        name: The upstream's.
        pool: Its destinations.
        how: Names what picked a destination for a request: its policy, or affinity.
        explain: Where it is said why a destination was picked.
    """

    def __init__(
        self,
        name: str,
        pool: Pool,
        how: Callable[[Scope, Destination | None], str],
        explain: Literal["off", "header", "log"],
    ) -> None:
        self.name = name
        self.pool = pool
        self.how = how
        self.explain = explain
        self._explains = explain != "off"

    def begin(self, scope: Scope) -> Trace | None:
        """Follow an exchange, if anybody wants to know."""
        if self._explains or _access.isEnabledFor(logging.INFO):
            return Trace(self, scope)
        return None


class Trace:
    """One exchange, followed to its end.

    Attributes:
        body: The request's, once there is one.
        end: How the tunnel ended.
        failed: The attempts that came to nothing, so far.
    """

    def __init__(self, records: Records, scope: Scope) -> None:
        self.body: RequestBody | None = None
        self.end: TunnelEnd | None = None
        self.failed: tuple[Attempt, ...] = ()
        self._records = records
        self._scope = scope
        self._started = monotonic()
        self._head: float | None = None
        self._status = 0
        self._sent = 0
        self._destination: Destination | None = None
        self._reasons: list[str] = []
        self._told = False

    def picked(self, tried: Collection[Destination], destination: Destination | None) -> None:
        """A destination was picked, or none was to be had."""
        records = self._records
        if records.explain == "off":
            return
        how = records.how(self._scope, destination)
        text = explanation(records.pool, how, tried, destination)
        self._reasons.append(text)
        if records.explain == "log" and _explain.isEnabledFor(logging.INFO):
            url = None if destination is None else destination.url
            _explain.info("%s", text, extra={"upstream": records.name, "destination": url})

    def answered(self, status: int, destination: Destination, headers: Headers) -> None:
        """The head of the answer is there; ``headers`` go to the client."""
        self._head = monotonic()
        self._status = status
        self._destination = destination
        if self._records.explain == "header":
            # Latest last, as the attempts were.
            text = " | ".join(self._reasons)
            headers.append((EXPLAIN_HEADER, text.encode("latin-1", "replace")))

    def follow_answer(
        self, exchange: TransportExchange, finish: Finish
    ) -> tuple[TransportExchange, Finish]:
        """Count what goes to the client and note how it ends."""

        def ended(failure: BaseException | None) -> Awaitable[None] | None:
            self._finish(failure)
            return finish(failure)

        return _Counted(exchange, self), ended

    async def follow(self, exchange: Coroutine[Any, Any, T]) -> T:
        """Wait for an answer or the end of a tunnel; if there is none, that is the end.

        Args:
            exchange: Gives it.
        """
        try:
            result = await exchange
        except BaseException as error:
            self._finish(error)
            raise
        if self._scope["type"] == "websocket":
            self._finish(None)
        return result

    def sent(self, data: bytes) -> None:
        """Something goes to the client."""
        self._sent += len(data)

    def _finish(self, failure: BaseException | None) -> None:
        if self._told or not _access.isEnabledFor(logging.INFO):
            return
        self._told = True
        now = monotonic()
        end = self.end
        attempts = self.failed
        if isinstance(failure, ProxyError) and failure.attempts and self._destination is None:
            attempts = failure.attempts
        elif self._destination is not None:
            attempts += (Attempt(self._destination.url, status=self._status),)
        if self._destination is None and isinstance(failure, ProxyError):
            self._status = failure.status
        scope = self._scope
        fields: dict[str, object] = {
            "upstream": self._records.name,
            "destination": attempts[-1].destination if attempts else None,
            "attempts": attempts,
            "protocol": scope["type"],
            "method": scope.get("method", "GET"),
            "path": scope["path"],
            "status": self._status,
            "failure": failure.failure.value if isinstance(failure, ProxyError) else None,
            "ended_by": _ended_by(failure, end),
            "received_bytes": 0 if self.body is None else self.body.size,
            "sent_bytes": self._sent,
            "head_ms": None if self._head is None else (self._head - self._started) * 1000,
            "total_ms": (now - self._started) * 1000,
        }
        if end is not None:
            fields["received_bytes"] = end.upward_bytes
            fields["sent_bytes"] = end.downward_bytes
            fields["end"] = end.reason.value
            fields["code"] = end.code
        _access.info(
            "%(upstream)s %(method)s %(path)s %(status)d %(ended_by)s %(destination)s"
            " %(total_ms).1f ms",
            fields,
            extra=fields,
        )


class _Counted:
    """An `TransportExchange` on its way to the client, counted."""

    def __init__(self, exchange: TransportExchange, trace: Trace) -> None:
        self._exchange = exchange
        self._trace = trace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exchange, name)

    async def read(self) -> bytes:
        data = await self._exchange.read()
        self._trace.sent(data)
        return data


def _ended_by(failure: BaseException | None, end: TunnelEnd | None) -> str:
    if end is not None:
        if end.reason in _PROXY_ENDS:
            return "proxy"
        # A message that is too big is the fault of whoever sent it.
        client = end.reason in _CLIENT_ENDS or (
            end.reason is WebSocketEnd.MESSAGE_TOO_BIG and end.error is None
        )
        return "client" if client else "destination"
    if failure is None:
        return "complete"
    if isinstance(failure, ProxyError):
        side: str = failure.failure.side.value
        return side
    if isinstance(failure, OSError):  # from the server's send: the client has left
        return "client"
    return "proxy"
