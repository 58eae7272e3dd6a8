"""Reports the results of live exchanges to ejection and to the policy.

The httpx client, leases and tunnels report their results here as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import Final

from fastapi_proxy_di.balancing.policy import BalancingPolicy, TrackingPolicy
from fastapi_proxy_di.errors import Attempt, Failure, ProxyError, Side
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import EjectionSettings
from fastapi_proxy_di.supervision.supervisor import Supervisor
from fastapi_proxy_di.transport.protocol import Headers, TransportExchange

__all__ = ["Outcomes", "names_retry_after", "retry_after_seconds"]

_RETRY_AFTER_STATUSES: Final = frozenset({429, 503})
_SERVER_ERRORS: Final = frozenset(range(500, 600))


class Outcomes:
    """Reports the results of the exchanges of one upstream.

    Args:
        supervisor: Ejects destinations that fail.
        policy: The policy, which learns from each result if it has ``observe``.
        ejection: Settings: which statuses count, and whether Retry-After does.

    Attributes:
        notable: Statuses that may be more than a success: failures, or with a Retry-After.
        learns: Whether the policy learns, so that attempts have to be timed.
        tracked: The policy if it tracks attempts without a response, else ``None``.
        succeeded: Counts an exchange that the destination served.
    """

    def __init__(
        self, supervisor: Supervisor, policy: BalancingPolicy, ejection: EjectionSettings
    ) -> None:
        self._supervisor = supervisor
        self._ejection = ejection
        self._observe = getattr(policy, "observe", None)
        self.learns: bool = self._observe is not None
        self.tracked: TrackingPolicy | None = policy if isinstance(policy, TrackingPolicy) else None
        self.succeeded: Callable[[Destination], None] = Ejector.succeeded
        self.notable: frozenset[int] = frozenset(ejection.statuses)
        if ejection.respect_retry_after:
            self.notable |= _RETRY_AFTER_STATUSES
        if self.learns:
            self.notable |= _SERVER_ERRORS

    def observe(self, destination: Destination, started: float, *, failed: bool) -> None:
        """Report an exchange to the policy, if it learns from exchanges.

        Args:
            destination: The destination of the exchange.
            started: Monotonic seconds at which the attempt began.
            failed: Whether the destination failed.
        """
        if self._observe is not None:
            now = monotonic()
            self._observe(destination, now - started, failed, now)

    def notable_response(
        self,
        destination: Destination,
        response: TransportExchange,
        started: float,
        *,
        of_key: bool = False,
        failed_event: bool = False,
    ) -> None:
        """Report a response with one of the ``notable`` statuses, or a stream that was held.

        Args:
            destination: The destination of the exchange.
            response: The response.
            started: Monotonic seconds at which the attempt began.
            of_key: Whether it refuses the request's key, so that it says nothing about the host.
            failed_event: Whether its first event means failure, which a policy learns. As with a
                status of 500, one bad request may be the cause, so it ejects nothing.
        """
        status = response.status
        if of_key:
            self.succeeded(destination)
            self.observe(destination, started, failed=False)
            return
        if status in self._ejection.statuses:
            self._supervisor.failed(destination, f"status {status}")
        else:
            self.succeeded(destination)
        if self._ejection.respect_retry_after and status in _RETRY_AFTER_STATUSES:
            seconds = retry_after_seconds(response.headers)
            if seconds is not None and seconds > 0:
                self._supervisor.cool_down(destination, seconds)
        self.observe(destination, started, failed=failed_event or status >= 500)

    def failed(self, destination: Destination, reason: str) -> None:
        """Count a failure on the destination's side, with ``reason`` as its name."""
        self._supervisor.failed(destination, reason)

    def attempt_failed(self, destination: Destination, failure: Failure, started: float) -> None:
        """Report a failed attempt, which counts if the destination caused the failure."""
        if failure.side is Side.DESTINATION:
            self._supervisor.failed(destination, failure.value)
            self.observe(destination, started, failed=True)

    def failed_late(self, destination: Destination, status: int, error: ProxyError) -> None:
        """Report a response or a tunnel that failed after its beginning.

        Args:
            destination: The destination of the exchange.
            status: The status of the response; one of ``ejection.statuses`` is counted already.
            error: The failure; a failure of another side is a good end for the destination.
        """
        if error.failure.side is not Side.DESTINATION:
            destination.completed += 1
        elif error.counts and status not in self._ejection.statuses:
            self._supervisor.failed(destination, error.failure.value, broke_off=True)
        error.request_sent = True
        error.upstream = self._supervisor.pool.name
        error.destination = destination.url
        if not error.attempts:
            error.attempts = (Attempt(destination.url, error.failure),)


def names_retry_after(response: TransportExchange) -> bool:
    """Return whether a 429 or 503 asks for time without requests (RFC 9110 section 10.2.3)."""
    if response.status not in _RETRY_AFTER_STATUSES:
        return False
    seconds = retry_after_seconds(response.headers)
    return seconds is not None and seconds > 0


def retry_after_seconds(headers: Headers) -> float | None:
    """Read a Retry-After as seconds from now; it may be a date (RFC 9110 section 10.2.3)."""
    for name, value in headers:
        if name == b"retry-after":
            if value.strip().isdigit():
                return float(value)
            with contextlib.suppress(ValueError, OverflowError):
                return parsedate_to_datetime(value.decode("latin-1")).timestamp() - time()
    return None
