"""Finds the nearest deadline of an exchange, and makes the error of a passed one.

Pure: the clock and the timers are in ``watcher``.
"""

from __future__ import annotations

from typing import NamedTuple

from fastapi_proxy_di.errors import (
    ClientStalled,
    Failure,
    ProxyError,
    RequestBodyTimeout,
    UpstreamTimeout,
)
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.settings import TimeoutSettings

__all__ = ["Deadlines", "nearest_deadline", "timeout_error"]


class Deadlines(NamedTuple):
    """The timeouts of one exchange in seconds; ``None`` is no timeout.

    The values may differ from ``TimeoutSettings`` for handshakes, for calls through the httpx
    client, and for single requests.
    """

    activity: float | None
    first_byte: float | None
    total: float | None

    @classmethod
    def of(cls, timeouts: TimeoutSettings) -> Deadlines:
        """Return the deadlines of the timeout settings."""
        return cls(timeouts.activity, timeouts.first_byte, timeouts.total)


def nearest_deadline(exchange: Exchange, deadlines: Deadlines) -> tuple[Failure | None, float]:
    """Return the deadline that comes next, and its loop time; ``None`` if there is none."""
    nearest: tuple[Failure | None, float] = (None, 0.0)
    if deadlines.total is not None:
        nearest = (Failure.TOTAL_TIMEOUT, exchange.started + deadlines.total)
    sent = exchange.transport_exchange
    if sent is None or exchange.attempt_timed_out:
        return nearest  # dialling and queueing have timeouts of their own
    if deadlines.first_byte is not None and not sent.answered:
        first_byte = exchange.attempt_started + deadlines.first_byte
        if nearest[0] is None or first_byte <= nearest[1]:
            nearest = (Failure.FIRST_BYTE_TIMEOUT, first_byte)
    if deadlines.activity is not None:
        idle = sent.last_activity + deadlines.activity
        if nearest[0] is None or idle < nearest[1]:
            nearest = (Failure.ACTIVITY_TIMEOUT, idle)
    return nearest


def timeout_error(exchange: Exchange, failure: Failure, deadlines: Deadlines) -> ProxyError:
    """Return the error for a passed deadline; client or destination may have caused it."""
    if failure is Failure.ACTIVITY_TIMEOUT:
        sent, body = exchange.transport_exchange, exchange.body
        if sent is not None and sent.stalled_by_reader:
            return ClientStalled("the client took nothing of the response in time")
        if body is not None and body.awaits_client:
            return RequestBodyTimeout("the client sent nothing of its body in time")
    seconds = {
        Failure.FIRST_BYTE_TIMEOUT: deadlines.first_byte,
        Failure.ACTIVITY_TIMEOUT: deadlines.activity,
        Failure.TOTAL_TIMEOUT: deadlines.total,
    }[failure]
    text = f"{failure.value.replace('_', ' ')} of {seconds:g} s ran out"
    return UpstreamTimeout(text, failure=failure)
