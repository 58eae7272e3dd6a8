"""The exceptions of proxied requests, and the side that caused each failure.

```text
ProxyError                          one request failed; a handler turns it into a response
├── NoAvailableDestination   503    no destination may be picked; carries ``retry_after``
│   ├── LimitExceeded        503    a limit of the settings was hit
│   ├── UpstreamClosed       503    the upstream was removed, or the app has ended
│   └── UpstreamsNotReady    503    raised by ``upstreams_ready``; carries their names
├── LocalResourcesExhausted  503    this process has no socket, port or memory left
├── DestinationNotAllowed    502    the address of a dynamic destination may not be reached
├── UpstreamConnectError     502    no connection: refused, unreachable, DNS, TLS
├── UpstreamDisconnected     502    the destination disconnected before its response was complete
├── UpstreamProtocolError    502    the response is malformed, or over a limit
├── AnswerTooLarge           502    the body of the response is longer than the app wanted to read
├── UpstreamTimeout          504    connect, first byte or event, activity or total time
├── InvalidRequest           400    the path has dot segments, or a header is malformed
├── RequestBodyTimeout       408    the client stopped sending its body
├── RequestBodyTooLarge      413    over ``limits.max_body_bytes``
├── RequestBodyConsumed      500    a dependency or middleware had read the body as a stream or form
└── ClientDisconnected       499    the client left; ends the exchange, no user sees it
ProxyNotStarted                     programming error: no lifespan has run; not a ``ProxyError``
SettingsError                       programming error: all faults of all upstreams in one text
```

The file depends on no HTTP library and no framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import ClassVar, Final, NamedTuple

from fastapi_proxy_di.wire.quoting import quoted

__all__ = [
    "AnswerTooLarge",
    "Attempt",
    "ClientDisconnected",
    "DestinationNotAllowed",
    "Failure",
    "InvalidRequest",
    "LimitExceeded",
    "LocalResourcesExhausted",
    "NoAvailableDestination",
    "ProxyError",
    "ProxyNotStarted",
    "RequestBodyConsumed",
    "RequestBodyTimeout",
    "RequestBodyTooLarge",
    "SettingsError",
    "Side",
    "UpstreamClosed",
    "UpstreamConnectError",
    "UpstreamDisconnected",
    "UpstreamProtocolError",
    "UpstreamTimeout",
    "UpstreamsNotReady",
]


class Side(Enum):
    """Side that caused a failure. Only ``DESTINATION`` ever counts against a destination."""

    CLIENT = "client"
    DESTINATION = "destination"
    PROXY = "proxy"


class Failure(Enum):
    """Kind of a failed attempt: its step, the side that caused it, and the client's status.

    The value is the name used in logs, problem documents and records.
    """

    NO_AVAILABLE_DESTINATION = "no_available_destination"
    LIMIT_EXCEEDED = "limit_exceeded"
    UPSTREAM_CLOSED = "upstream_closed"
    LOCAL_RESOURCES = "local_resources"
    REFUSED_ADDRESS = "refused_address"
    RESOLVE = "resolve"
    CONNECT = "connect"
    CONNECT_TIMEOUT = "connect_timeout"
    TLS = "tls"
    REQUEST_WRITE = "request_write"
    NOT_PROCESSED = "not_processed"
    RESPONSE_HEAD = "response_head"
    RESPONSE_MALFORMED = "response_malformed"
    RESPONSE_BODY = "response_body"
    RESPONSE_TOO_LARGE = "response_too_large"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    FIRST_EVENT = "first_event"
    FIRST_EVENT_TIMEOUT = "first_event_timeout"
    STREAM_IDLE = "stream_idle"
    ACTIVITY_TIMEOUT = "activity_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    REQUEST_INVALID = "request_invalid"
    REQUEST_BODY_TIMEOUT = "request_body_timeout"
    REQUEST_BODY_TOO_LARGE = "request_body_too_large"
    REQUEST_BODY_CONSUMED = "request_body_consumed"
    CLIENT_DISCONNECTED = "client_disconnected"

    @property
    def side(self) -> Side:
        """The side that caused the failure."""
        return _SIDES.get(self, Side.DESTINATION)

    @property
    def status(self) -> int:
        """The HTTP status the client gets when nothing has been sent to it yet."""
        return _STATUSES.get(self, 502)

    @property
    def held(self) -> bool:
        """Whether a stream failed while it was held, so that the client has got nothing of it."""
        return self in _HELD

    @property
    def unsent(self) -> bool:
        """Whether no byte of the request can have reached the destination."""
        return self in _UNSENT


_SIDES: Final[dict[Failure, Side]] = {
    Failure.NO_AVAILABLE_DESTINATION: Side.PROXY,
    Failure.LIMIT_EXCEEDED: Side.PROXY,
    Failure.UPSTREAM_CLOSED: Side.PROXY,
    Failure.LOCAL_RESOURCES: Side.PROXY,
    # The rules of this proxy refuse the address; a record of that is wanted, so not ``CLIENT``.
    Failure.REFUSED_ADDRESS: Side.PROXY,
    # The caller's own deadline says nothing about the destination.
    Failure.TOTAL_TIMEOUT: Side.PROXY,
    Failure.REQUEST_BODY_CONSUMED: Side.PROXY,
    # A destination that ends a connection after some requests, or takes no more of them at the
    # moment, works (RFC 9113 section 8.7).
    Failure.NOT_PROCESSED: Side.PROXY,
    Failure.RESPONSE_TOO_LARGE: Side.PROXY,  # the app has set the limit
    Failure.REQUEST_INVALID: Side.CLIENT,
    Failure.REQUEST_BODY_TIMEOUT: Side.CLIENT,
    Failure.REQUEST_BODY_TOO_LARGE: Side.CLIENT,
    Failure.CLIENT_DISCONNECTED: Side.CLIENT,
}
_STATUSES: Final[dict[Failure, int]] = {
    Failure.NO_AVAILABLE_DESTINATION: 503,
    Failure.LIMIT_EXCEEDED: 503,
    Failure.UPSTREAM_CLOSED: 503,
    Failure.LOCAL_RESOURCES: 503,
    Failure.CONNECT_TIMEOUT: 504,
    Failure.FIRST_BYTE_TIMEOUT: 504,
    Failure.FIRST_EVENT_TIMEOUT: 504,
    Failure.STREAM_IDLE: 504,
    Failure.ACTIVITY_TIMEOUT: 504,
    Failure.TOTAL_TIMEOUT: 504,
    Failure.REQUEST_INVALID: 400,
    Failure.REQUEST_BODY_TIMEOUT: 408,
    Failure.REQUEST_BODY_TOO_LARGE: 413,
    Failure.REQUEST_BODY_CONSUMED: 500,
    Failure.CLIENT_DISCONNECTED: 499,
}
_HELD: Final = frozenset({Failure.FIRST_EVENT, Failure.FIRST_EVENT_TIMEOUT})
_UNSENT: Final[frozenset[Failure]] = frozenset(
    {
        Failure.RESOLVE,
        Failure.CONNECT,
        Failure.CONNECT_TIMEOUT,
        Failure.TLS,
        Failure.LOCAL_RESOURCES,
        Failure.REFUSED_ADDRESS,
    }
)


class Attempt(NamedTuple):
    """One try of one request at one destination, as errors and records report it.

    Attributes:
        destination: Address of the destination.
        failure: Where and on whose side it broke, ``None`` if a response came.
        status: Status of the response, ``None`` if none came.
    """

    destination: str
    failure: Failure | None = None
    status: int | None = None


class ProxyError(Exception):
    """One proxied request failed.

    The message may quote what a client or a destination sent: everything in it that is not
    printable is escaped, and it has at most 500 characters, so that it may be logged.

    Attributes:
        failure: Where and on whose side it broke.
        upstream: Name of the upstream, once known.
        destination: Address of the last destination tried, ``None`` if none was.
        attempts: Every attempt, in order.
        request_sent: Whether any byte of the request may have left; if not, no destination can
            have done anything, and the request may be sent to another upstream whatever its
            method.
        counts: Whether the failure counts against the destination if that caused it; true for
            one only of the exchanges that end with a connection they share.
    """

    default_failure: ClassVar[Failure] = Failure.RESPONSE_HEAD

    def __init__(
        self,
        message: str = "",
        *,
        failure: Failure | None = None,
        upstream: str | None = None,
        destination: str | None = None,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        super().__init__(quoted(message) or type(self).__name__)
        self.failure: Failure = failure or self.default_failure
        self.upstream = upstream
        self.destination = destination
        self.attempts: tuple[Attempt, ...] = tuple(attempts)
        self.request_sent: bool = False
        self.counts: bool = True

    @property
    def status(self) -> int:
        """The HTTP status for this error."""
        return self.failure.status


class NoAvailableDestination(ProxyError):
    """No destination may be picked: all are draining, full, or down.

    Attributes:
        retry_after: Seconds after which trying again makes sense.
    """

    default_failure = Failure.NO_AVAILABLE_DESTINATION
    retry_after: float = 1.0


class LimitExceeded(NoAvailableDestination):
    """A limit of the settings was hit: requests in flight, queue, or requests per window.

    Attributes:
        limit: The setting, e.g. ``"limits.max_in_flight"``; ``"destinations"`` if every
            destination is at a limit of its own; ``"ejection.key"`` if the request's key cools.
        announced: Whether this refusal emitted the event ``LimitHit``, whose record is in the log.
    """

    default_failure = Failure.LIMIT_EXCEEDED
    limit: str = "destinations"
    announced: bool = False


class UpstreamClosed(NoAvailableDestination):
    """The upstream takes no requests any more: it was removed, or the app has ended."""

    default_failure = Failure.UPSTREAM_CLOSED


class UpstreamsNotReady(NoAvailableDestination):
    """Upstreams that the app needs have no available destination.

    Attributes:
        upstreams: Names of these upstreams.
    """

    def __init__(self, upstreams: Sequence[str]) -> None:
        super().__init__(f"not ready: {', '.join(upstreams)}", upstream=upstreams[0])
        self.upstreams: tuple[str, ...] = tuple(upstreams)


class LocalResourcesExhausted(ProxyError):
    """This process has no file descriptor, port or memory left for a connection."""

    default_failure = Failure.LOCAL_RESOURCES


class DestinationNotAllowed(ProxyError, ValueError):
    """The address of a dynamic destination may not be reached, by ``allowed_destinations``.

    The text of the address is malformed, the address is not in the lists, or a name leads to an IP
    address that is refused. Nothing was sent. The response says no more than the failure; the
    text of the error says what is wrong, and is logged. A ``ValueError`` too, so that code may
    treat the address as a bad argument.
    """

    default_failure = Failure.REFUSED_ADDRESS


class UpstreamConnectError(ProxyError):
    """No connection to the destination: refused, unreachable, unknown host or TLS."""

    default_failure = Failure.CONNECT


class UpstreamDisconnected(ProxyError):
    """The destination closed or reset the connection before its response was complete."""

    default_failure = Failure.RESPONSE_HEAD


class UpstreamProtocolError(ProxyError):
    """The destination's response is malformed or over a limit."""

    default_failure = Failure.RESPONSE_MALFORMED


class AnswerTooLarge(ProxyError):
    """The body of a response is longer than the app wanted to read.

    What was read is kept: the response may still be returned, or read with a larger limit.
    """

    default_failure = Failure.RESPONSE_TOO_LARGE


class UpstreamTimeout(ProxyError):
    """A timeout of the settings ran out on the destination's side."""

    default_failure = Failure.ACTIVITY_TIMEOUT


class InvalidRequest(ProxyError):
    """The path has dot segments that are not passed on, or a header is malformed."""

    default_failure = Failure.REQUEST_INVALID


class RequestBodyTimeout(ProxyError):
    """The client sent nothing of its body for ``timeouts.activity`` seconds."""

    default_failure = Failure.REQUEST_BODY_TIMEOUT


class RequestBodyTooLarge(ProxyError):
    """The request body is over ``limits.max_body_bytes``."""

    default_failure = Failure.REQUEST_BODY_TOO_LARGE


class RequestBodyConsumed(ProxyError):
    """A dependency or middleware read the body as a stream or form; it cannot be sent again."""

    default_failure = Failure.REQUEST_BODY_CONSUMED


class ClientDisconnected(ProxyError):
    """The client disconnected. Internal: ends the exchange, is never raised to a user."""

    default_failure = Failure.CLIENT_DISCONNECTED


class ClientStalled(ClientDisconnected):
    """The client is connected but reads nothing. Internal, as `ClientDisconnected`."""


class ProxyNotStarted(RuntimeError):
    """An upstream was used before a lifespan started it."""


class SettingsError(ValueError):
    """Every fault of the settings of every upstream of the app, in one text."""
