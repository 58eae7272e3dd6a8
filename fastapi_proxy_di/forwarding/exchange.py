"""One exchange: a client's request with all its attempts, its response and its end.

Every step of the journey takes this one object: the request builder stores the outgoing request
in it, the retry loop the destination and failed attempts, the watcher its tasks and timer, and
`begin` the metrics and the observer. The object keeps its state consistent and makes no decisions.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.errors import Attempt
from fastapi_proxy_di.forwarding.overrides import Overrides
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.transport.protocol import Headers, TransportExchange

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from fastapi_proxy_di.forwarding.body import RequestBody
    from fastapi_proxy_di.forwarding.early_hints import EarlyHints
    from fastapi_proxy_di.forwarding.observer import ExchangeMetrics, Observer, Observers
    from fastapi_proxy_di.forwarding.tunnel import TunnelEnd
    from fastapi_proxy_di.forwarding.usage import Usage
    from fastapi_proxy_di.forwarding.watcher import Watcher

__all__ = ["Dials", "Exchange"]


class Dials:
    """Count of dials after a failed dial, shared by all branches of one request."""

    __slots__ = ("further",)

    def __init__(self) -> None:
        self.further: int = 0


class Exchange:
    """One request under way, from its arrival to the end of its response.

    Args:
        scope: The ASGI scope of the client's request.
        receive: The client's ASGI ``receive``; ``None`` for an exchange without a client.
        send: The client's ASGI ``send``, for early hints; ``None`` forwards no hints.
        path: Raw path below the mount; may have a query, which comes before the client's.
        prefix: Raw path of the mount.
        overrides: Values to send instead of the client's.
        key: The part of the request that the policy may see.

    Attributes:
        method: The method to send. The request builder sets this attribute and those up to
            ``upgrade``.
        target: Raw path to send, below the destination's base path.
        query: Raw query to send.
        headers: The headers to send, framing included, Host excluded.
        host: The Host to send, ``None`` for the destination's authority.
        length: Length of the body in bytes, ``None`` if unknown or if there is no body.
        chunked: Whether the body is sent in chunks.
        has_body: Whether a body is sent, also one of zero bytes.
        expects_continue: Whether the client waits for 100 Continue before it sends its body.
        repeatable: Whether the request may be sent twice, because of its method or an
            ``Idempotency-Key``.
        upgrade: Whether the request is a WebSocket handshake.
        body: The body of the request, ``None`` if it has none.
        attempts: The failed attempts, in order.
        request_sent: Whether a failed attempt has sent any byte of the request.
        avoid: Destinations that are not picked, because another branch of the request is
            there.
        destination: The destination of the current or last attempt.
        in_flight: Whether the exchange is counted as in flight at ``destination``.
        transport_exchange: The current attempt, or the one whose response the client gets.
        dials: The count of further dials, ``None`` before the first one.
        early_hints: Forwards 103 responses; ``None`` if the server does not take them.
        metrics: Count the exchange.
        observer: The observer of the exchange, ``None`` if none is wanted.
        tunnel_end: The end of its tunnel.
        usage: What a language model has used for it, set by a tap.
        error: The error that ended the exchange early.
        watcher: Watches the client and the deadlines.
        started: Loop time of the start of the exchange.
        context: The context variables at its start, for the task that reads from the client.
        counts: The counts of ``destination``, kept by the metrics for the current attempt.
        attempt_began: Monotonic seconds at which the attempt began, set by the metrics.
        head_at: Monotonic seconds of the head of its response, 0 before; set by the metrics.
        attempt_headers: The headers of the current attempt if an observer changed them, else
            ``None``.
        span: The span of the current attempt, set by an observer.
        queued: Seconds that the exchange waited in the queue, ``None`` if it did not.
        attempt_started: Loop time at which the current attempt was sent.
        attempt_timed_out: Whether a deadline ended the current attempt; another may follow.
        watched: Whether the exchange lasted long enough for its client and deadlines to be
            watched.
        pending: The task that is awaited before there is a ``transport_exchange``.
        client_task: The task that reads the client's messages.
        deadline_timer: The timer of the nearest deadline.
    """

    __slots__ = (
        "attempt_began",
        "attempt_headers",
        "attempt_started",
        "attempt_timed_out",
        "attempts",
        "avoid",
        "body",
        "chunked",
        "client_task",
        "context",
        "counts",
        "deadline_timer",
        "destination",
        "dials",
        "early_hints",
        "error",
        "expects_continue",
        "has_body",
        "head_at",
        "headers",
        "host",
        "in_flight",
        "key",
        "length",
        "method",
        "metrics",
        "observer",
        "overrides",
        "path",
        "pending",
        "prefix",
        "query",
        "queued",
        "receive",
        "repeatable",
        "request_sent",
        "scope",
        "send",
        "span",
        "started",
        "target",
        "transport_exchange",
        "tunnel_end",
        "upgrade",
        "usage",
        "watched",
        "watcher",
    )

    watcher: Watcher
    started: float
    attempt_started: float
    context: Context
    metrics: ExchangeMetrics
    destination: Destination
    counts: Any
    attempt_began: float
    head_at: float

    def __init__(
        self,
        scope: Scope,
        receive: Receive | None,
        send: Send | None,
        path: bytes,
        prefix: bytes,
        overrides: Overrides | None = None,
        key: PickRequest | None = None,
    ) -> None:
        self.scope: Scope = scope
        self.receive: Receive | None = receive
        self.send: Send | None = send
        self.path: bytes = path
        self.prefix: bytes = prefix
        self.overrides: Overrides | None = overrides
        self.key: PickRequest | None = key
        self.method: bytes = b"GET"
        self.target: bytes = path
        self.query: bytes = b""
        self.headers: Headers = []
        self.host: bytes | None = None
        self.length: int | None = None
        self.chunked: bool = False
        self.has_body: bool = False
        self.expects_continue: bool = False
        self.repeatable: bool = False
        self.upgrade: bool = False
        self.body: RequestBody | None = None
        self.attempts: tuple[Attempt, ...] = ()
        self.request_sent: bool = False
        self.avoid: tuple[Destination, ...] = ()
        self.in_flight: bool = False
        self.transport_exchange: TransportExchange | None = None
        self.dials: Dials | None = None
        self.early_hints: EarlyHints | None = None
        self.observer: Observer | None = None
        self.queued: float | None = None
        self.attempt_headers: Headers | None = None
        self.span: Span | None = None
        self.tunnel_end: TunnelEnd | None = None
        self.usage: Usage | None = None
        self.error: BaseException | None = None
        self.watched: bool = False
        self.attempt_timed_out: bool = False
        self.pending: asyncio.Task[Any] | None = None
        self.client_task: asyncio.Task[None] | None = None
        self.deadline_timer: asyncio.TimerHandle | None = None

    @property
    def response(self) -> TransportExchange:
        """The attempt whose response the client gets, once there is one."""
        assert self.transport_exchange is not None
        return self.transport_exchange

    def begin(self, watcher: Watcher, observers: Observers) -> None:
        """Begin the exchange; its time starts with ``watcher.start``.

        Args:
            watcher: Watches the client and the deadlines.
            observers: Has the metrics, and makes the observer of the exchange.
        """
        self.watcher = watcher
        self.metrics = observers.metrics
        self.observer = observers.observe(self)

    def take_place(self, destination: Destination) -> None:
        """Count the exchange as in flight at ``destination``, for an attempt that follows."""
        self.destination = destination
        self.in_flight = True
        destination.in_flight += 1
        destination.requests_in_window += 1

    def leave_place(self) -> None:
        """Count the exchange as no longer in flight, if it is."""
        if self.in_flight:
            self.in_flight = False
            self.destination.end()

    def begin_attempt(self) -> None:
        """Begin the attempt at the destination where the exchange has taken a place."""
        self.metrics.attempt_began(self)
        if self.observer is not None:
            self.observer.attempt_began(self)

    def attach(self, transport_exchange: TransportExchange) -> None:
        """Store the attempt that was sent; from now on ``interrupt`` ends it."""
        self.transport_exchange = transport_exchange
        self.attempt_started = transport_exchange.last_activity
        self.attempt_timed_out = False
        if self.early_hints is not None:
            transport_exchange.on_informational = self.early_hints.take
        if self.error is not None:
            transport_exchange.fail(self.error)
        elif self.watched:
            self.watcher.arm(self)

    def end_attempt(self, failure: BaseException | None = None) -> None:
        """Close the attempt and count it as no longer in flight.

        Args:
            failure: The error that ended the attempt early, ``None`` for none.
        """
        if self.in_flight:
            self.metrics.attempt_ended(self, failure)
            if self.observer is not None:
                self.observer.attempt_ended(self, failure)
        transport_exchange, self.transport_exchange = self.transport_exchange, None
        if transport_exchange is not None:
            transport_exchange.close()
        self.leave_place()

    def interrupt(self, error: BaseException) -> None:
        """End the exchange with ``error``, whatever it is waiting for."""
        if self.error is None:
            self.error = error
        if self.transport_exchange is not None and not self.attempt_timed_out:
            self.transport_exchange.fail(self.error)
        elif self.pending is not None:
            self.pending.cancel()

    def branch(self, avoid: tuple[Destination, ...]) -> Exchange:
        """Return a second exchange for the same request, which may run at the same time.

        Only this exchange reads from the client. Both share the count of further dials.

        Args:
            avoid: Destinations that are not picked for the branch.
        """
        if self.dials is None:
            self.dials = Dials()
        branch = Exchange(self.scope, None, None, self.path, self.prefix, self.overrides, self.key)
        branch.method = self.method
        branch.target = self.target
        branch.query = self.query
        branch.headers = self.headers
        branch.host = self.host
        branch.repeatable = self.repeatable
        branch.metrics = self.metrics
        branch.observer = self.observer
        branch.queued = self.queued
        branch.dials = self.dials
        branch.avoid = avoid
        return branch

    def adopt(self, branch: Exchange) -> None:
        """Take over the attempt of ``branch``, whose response the client gets."""
        self.attempts = branch.attempts
        self.destination = branch.destination
        self.in_flight, branch.in_flight = branch.in_flight, False
        self.counts = branch.counts
        self.attempt_began, self.head_at = branch.attempt_began, branch.head_at
        self.span, branch.span = branch.span, None
        self.attach(branch.response)
