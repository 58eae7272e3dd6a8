"""``Lease``: a destination held for an SDK that has its own HTTP client.

The lease sends nothing. Its holder reports the results, which count for health and policy like
those of a forwarded request. ``leasing`` begins and ends leases.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from fastapi_proxy_di.errors import ProxyError, Side
from fastapi_proxy_di.forwarding.outcomes import Outcomes
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.wire.quoting import quoted


class LeaseFailed(Exception):
    """A failure that the holder of a lease has reported as a text."""


class Lease:
    """One destination, held until the end of its ``async with``.

    Attributes:
        destination: The destination that the policy picked.
        url: The address of the destination, without a slash at its end.
    """

    __slots__ = ("_counted", "_observed", "_outcomes", "_report", "_started", "destination", "url")

    def __init__(
        self,
        outcomes: Outcomes,
        destination: Destination,
        report: Callable[[BaseException], None],
    ) -> None:
        self.destination: Destination = destination
        self.url: str = destination.url
        self._outcomes = outcomes
        self._report = report
        self._started = monotonic()
        self._observed = False
        self._counted = False

    def answered(self) -> None:
        """Report that the response has begun; the time until now is the latency.

        Without this call the time to the end of the lease counts, which is too long for streams.
        """
        self._observe(failed=False)

    def failed(self, error: BaseException | str = "lease") -> None:
        """Report that the destination failed; counts towards its ejection, once per lease.

        Metrics and the span of the lease have the failure too.

        Args:
            error: The failure, for events and records. A ``ProxyError`` that another side
                caused is not counted.
        """
        if self._counted:
            return
        self._counted = True
        if isinstance(error, ProxyError):
            if error.failure.side is not Side.DESTINATION:
                self._observed = True
                return
            reason = error.failure.value
        else:
            reason = quoted(error) if isinstance(error, str) else type(error).__name__
        self._report(LeaseFailed(error) if isinstance(error, str) else error)
        self._outcomes.failed(self.destination, reason)
        self._observe(failed=True)

    def succeeded(self) -> None:
        """Count the end of the lease as a success, unless ``failed`` was called."""
        if not self._counted:
            self._counted = True
            self._outcomes.succeeded(self.destination)
            self._observe(failed=False)

    def _observe(self, *, failed: bool) -> None:
        if not self._observed:
            self._observed = True
            self._outcomes.observe(self.destination, self._started, failed=failed)
