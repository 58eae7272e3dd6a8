"""One exchange: a client's request with all its attempts, its response and its end.

Every step of the journey takes this one object: the request builder stores the outgoing request
in it, the retry loop the destination and failed attempts, the watcher its tasks and timer, and
`begin` the observer. It keeps itself consistent and decides nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.errors import Attempt
from fastapi_proxy_di.forwarding.overrides import Overrides
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.transport.protocol import Headers, TransportExchange

if TYPE_CHECKING:
    from fastapi_proxy_di.forwarding.body import RequestBody
    from fastapi_proxy_di.forwarding.early_hints import EarlyHints
    from fastapi_proxy_di.forwarding.observer import Observer, Observers
    from fastapi_proxy_di.forwarding.tunnel import TunnelEnd
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
        scope: Of the client's request.
        receive: Of the client's request; ``None`` where there is no client to read from.
        send: Of the client's request, for early hints; ``None`` passes none on.
        path: Raw path below the mount; may bring a query, which stands before the client's.
        prefix: Raw path of the mount.
        overrides: What the caller wants otherwise.
        key: What the policy may see of the request.

    Attributes:
        method: As sent, from here to ``upgrade`` filled in by the request builder.
        target: Raw path as sent, below the destination's base path.
        query: Raw query as sent.
        headers: As sent, all but Host; framing among them.
        host: Host to send, ``None`` for the destination's authority.
        length: Of the body, ``None`` if there is none or only its end will show.
        chunked: The body goes in chunks.
        has_body: A body travels, however long.
        expects_continue: The client waits for 100 before it sends its body.
        repeatable: May be sent twice, by its method or an ``Idempotency-Key``.
        upgrade: A WebSocket handshake.
        body: The request's body, ``None`` if it has none.
        attempts: The attempts that have failed, in order.
        avoid: Destinations where it must not go: another branch of the same request is there.
        destination: Of the attempt under way, or of the last one.
        in_flight: Whether it is counted as in flight at ``destination``.
        transport_exchange: The attempt under way, or the one whose response the client gets.
        dials: Counts further dials, once there was one.
        early_hints: Where 103 responses go, if the server takes them.
        observer: Listens to the exchange, ``None`` if there is none.
        tunnel_end: How its tunnel ended.
        error: What ended it early.
        watcher: Watches its client and its deadlines.
        started: Loop time of its start.
        attempt_started: Loop time at which the attempt under way was sent.
        attempt_timed_out: Whether a deadline has ended it; the exchange may go on elsewhere.
        watched: Whether it has lasted long enough for its client and deadlines to be watched.
        pending: What it waits for before there is a ``transport_exchange``.
        client_task: Reads what the client sends.
        deadline_timer: Fires at the nearest deadline.
    """

    __slots__ = (
        "attempt_started",
        "attempt_timed_out",
        "attempts",
        "avoid",
        "body",
        "chunked",
        "client_task",
        "deadline_timer",
        "destination",
        "dials",
        "early_hints",
        "error",
        "expects_continue",
        "has_body",
        "headers",
        "host",
        "in_flight",
        "key",
        "length",
        "method",
        "observer",
        "overrides",
        "path",
        "pending",
        "prefix",
        "query",
        "receive",
        "repeatable",
        "scope",
        "send",
        "started",
        "target",
        "transport_exchange",
        "tunnel_end",
        "upgrade",
        "watched",
        "watcher",
    )

    watcher: Watcher
    started: float
    attempt_started: float
    destination: Destination

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
        self.avoid: tuple[Destination, ...] = ()
        self.in_flight: bool = False
        self.transport_exchange: TransportExchange | None = None
        self.dials: Dials | None = None
        self.early_hints: EarlyHints | None = None
        self.observer: Observer | None = None
        self.tunnel_end: TunnelEnd | None = None
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

    def begin(self, watcher: Watcher, observers: Observers | None) -> None:
        """Begin the exchange; its time starts to run with ``watcher.start``.

        Args:
            watcher: Watches its client and its deadlines.
            observers: Gives its observer, ``None`` for none.
        """
        self.watcher = watcher
        if observers is not None and observers.wanted():
            self.observer = observers.observe(self)

    def begin_attempt(self, destination: Destination) -> None:
        """Count the exchange as in flight at ``destination``."""
        self.destination = destination
        self.in_flight = True
        destination.begin()

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

    def end_attempt(self) -> None:
        """Close the attempt and count it as no longer in flight."""
        transport_exchange, self.transport_exchange = self.transport_exchange, None
        if transport_exchange is not None:
            transport_exchange.close()
        if self.in_flight:
            self.in_flight = False
            self.destination.end()

    def interrupt(self, error: BaseException) -> None:
        """End the exchange with ``error``, whatever it is waiting for."""
        if self.error is None:
            self.error = error
        if self.transport_exchange is not None and not self.attempt_timed_out:
            self.transport_exchange.fail(self.error)
        elif self.pending is not None:
            self.pending.cancel()

    def branch(self, avoid: tuple[Destination, ...]) -> Exchange:
        """Return another exchange for the same request, which may run at the same time.

        The client stays with this one. Both count further dials together.

        Args:
            avoid: Destinations where the branch must not go.
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
        branch.observer = self.observer
        branch.dials = self.dials
        branch.avoid = avoid
        return branch

    def adopt(self, branch: Exchange) -> None:
        """Take over the attempt of ``branch``, whose response the client gets."""
        self.attempts = branch.attempts
        self.destination = branch.destination
        self.in_flight, branch.in_flight = branch.in_flight, False
        self.attach(branch.response)
