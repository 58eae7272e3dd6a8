"""Settings of retries, timeouts and limits."""

from typing import Annotated

from pydantic import Field

from fastapi_proxy_di.settings.durations import Duration, DurationOrZero
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.values import Methods, OrNone, StatusCodes

__all__ = ["LimitSettings", "RetrySettings", "TimeoutSettings"]

OptionalDuration = Annotated[Duration | None, OrNone]
Count = Annotated[int, Field(ge=0)]
OptionalCount = Annotated[int | None, Field(ge=1), OrNone]


class RetrySettings(SettingsModel):
    """Further attempts at other destinations."""

    attempts: Annotated[int, Field(ge=0, le=100)] = 1
    """Extra attempts after the first (Envoy, Linkerd: 1). Failed dials are free of it."""

    methods: Methods = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
    """Methods that may be sent twice (RFC 9110 §9.2.1, fastify); others only with an
    ``Idempotency-Key`` or while no byte of them was written."""

    statuses: StatusCodes = StatusCodes()
    """Answers that are tried again elsewhere, e.g. ``502,503``."""

    replay_bytes: Count = 65536
    """Bytes of a body kept to send it again (Linkerd: 64 KiB)."""

    budget_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Retries as a share of requests (Finagle, Envoy: 0.2), so that they cannot make an
    outage worse."""

    budget_minimum: Count = 10
    """Retries per 10 seconds that are always allowed."""

    backoff: DurationOrZero = 0.025
    """Seconds before a retry, times 2ⁿ, with full jitter (Envoy: 25 ms)."""

    hedge_after: OptionalDuration = None
    """Seconds without an answer after which an idempotent request is also sent to a second
    destination, under the same budget; none for never."""


class TimeoutSettings(SettingsModel):
    """How long to wait, in seconds."""

    connect: Duration = 5.0
    """For a connection, TLS included (Envoy: 5)."""

    activity: Duration = 100.0
    """Without any byte either way, in a request (YARP: 100). WebSockets have their pings."""

    first_byte: OptionalDuration = None
    """From the end of the request until the answer's first byte; none for no limit."""

    total: OptionalDuration = None
    """For the whole exchange, retries included; none for no limit, as streams have no end."""


class LimitSettings(SettingsModel):
    """What one upstream may use."""

    max_in_flight: OptionalCount = None
    """Requests and WebSockets under way at once; none for no limit."""

    queue: Count = 0
    """Requests that may wait for a free place; more get 503."""

    queue_timeout: DurationOrZero = 1.0
    """Seconds that one may wait."""

    max_body_bytes: Annotated[int | None, Field(ge=0), OrNone] = None
    """Largest request body; over it 413. None for no limit."""

    max_response_header_bytes: Annotated[int, Field(ge=1024)] = 65536
    """Largest header block of an answer; over it 502 (YARP: 64 KiB)."""

    idle_connections: Count = 100
    """Idle connections kept per destination for longer than a second. Those in use are never
    capped."""

    idle_seconds: DurationOrZero = 4.0
    """Seconds that one is kept: under the 5 after which uvicorn and many others close."""

    expect_continue: DurationOrZero = 1.0
    """Seconds to wait for the destination's 100 before the body is read all the same
    (Go: 1)."""
