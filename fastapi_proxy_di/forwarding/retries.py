"""Decides whether another attempt may follow, within a retry budget and after a pause.

The decision depends only on the ``Outcome`` of the last attempt, the settings and the budget.

```text
what happened                                 which requests                    verdict
failure of the client's or ours               -                                 NO
no connection                                 any, 3 other destinations         RETRY_FREE
not processed by the destination              any, 10 times on new connections  RETRY_UNPROCESSED
a reused connection closed, no response byte  repeatable, once                  RETRY_FREE
any other failure before a response byte      repeatable                        RETRY_COUNTED
a stream that failed before its first event   repeatable, streams.retry: POST   RETRY_COUNTED
a response with a status of ``statuses``      repeatable                        RETRY_COUNTED
a response with one of ``refused_statuses``   any                               RETRY_COUNTED
anything else, or attempts or budget used up  -                                 NO
```

All retries need a body that can be sent again. *Repeatable* is a listed method or a request
with ``Idempotency-Key``. *Not processed*: the destination said so, by GOAWAY with a lower last
stream or by REFUSED_STREAM (RFC 9113 section 8.7). There is no row for a connection to which
nothing was written: a request is written as soon as there is a connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import TYPE_CHECKING, Final

from fastapi_proxy_di.errors import Failure, Side
from fastapi_proxy_di.health.rolling import RollingCount, RollingTotal

if TYPE_CHECKING:
    from fastapi_proxy_di.settings import RetrySettings

__all__ = [
    "MAX_CONNECT_RETRIES",
    "MAX_REFUSALS",
    "Outcome",
    "RetryBudget",
    "Verdict",
    "backoff",
    "decide",
    "goes_on",
]

MAX_CONNECT_RETRIES: Final = 3
MAX_REFUSALS: Final = 10
"""How often a request that was not processed is sent again. nginx ends a connection after
``keepalive_requests`` (100 or more) and allows 128 streams at a time, so it refuses at most 28
of 128 requests, and one request ten times in a row in 1 of 4 million cases."""

BUDGET_WINDOW_SECONDS: Final = 10.0
# As in Envoy: a pause of more than ten times the base does not help a waiting request.
_BACKOFF_CAP: Final = 10

# The failures of a connection that the destination closes while a request is being sent.
_CLOSED: Final = frozenset({Failure.REQUEST_WRITE, Failure.RESPONSE_HEAD})


class Verdict(Enum):
    """Decision whether another attempt follows, and whether it counts."""

    NO = "no"
    RETRY_FREE = "free"
    """Another attempt that is not counted: at another destination after a failed dial, or on a
    new connection after a reused one had closed."""
    RETRY_UNPROCESSED = "unprocessed"
    """Another attempt on a new connection that is not counted: the last one did nothing."""
    RETRY_COUNTED = "counted"
    """Another attempt that is counted against the attempts and the budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one attempt, and the retries that the request has used so far.

    Attributes:
        failure: The failure of the attempt, ``None`` if a response came.
        status: The status of the response, ``None`` if none came.
        failed_event: Whether the first event of the response means failure.
        repeatable: Whether the request may be sent twice.
        reused: Whether the connection had served before.
        answered: Whether any byte of the response arrived.
        replayable: Whether the body can be sent again from its beginning; true if nothing of
            it was read.
        retries: Number of counted retries of the request.
        connect_retries: Number of free retries after failed dials.
        resent: Whether the request has used its free retry on a new connection.
        refusals: How often destinations have not processed the request, before this attempt.
    """

    failure: Failure | None = None
    status: int | None = None
    failed_event: bool = False
    repeatable: bool = False
    reused: bool = False
    answered: bool = False
    replayable: bool = True
    retries: int = 0
    connect_retries: int = 0
    resent: bool = False
    refusals: int = 0


class RetryBudget:
    """Counted retries allowed over ten seconds: a minimum and a share of the requests.

    The budget keeps retries from making an outage worse: an upstream gets at most ``1 + share``
    times the requests of the clients, plus the minimum.

    Args:
        share: Retries per request.
        minimum: Retries per window that are always allowed.
        started: Monotonic seconds at which the requests begin; without it, all requests until the
            first retry would count as recent.
        window: Seconds.

    Attributes:
        requests: Number of requests so far, each counted before its first attempt.
    """

    __slots__ = (
        "_deposits",
        "_minimum",
        "_share",
        "_withdrawals",
        "requests",
    )

    def __init__(
        self,
        share: float,
        minimum: int,
        *,
        started: float,
        window: float = BUDGET_WINDOW_SECONDS,
    ) -> None:
        self._share = share
        self._minimum = minimum
        self.requests: int = 0
        self._deposits = RollingTotal(window)
        self._deposits.mark(started, 0)
        self._withdrawals = RollingCount(window)

    def configure(self, share: float, minimum: int) -> None:
        """Allow other numbers from now on; the retries of the window stay counted."""
        self._share = share
        self._minimum = minimum

    def withdraw(self, now: float) -> bool:
        """Take one retry at ``now`` (monotonic seconds); return false if none is left."""
        self._deposits.mark(now, self.requests)
        if self.left(now) < 1:
            return False
        self._withdrawals.add(now)
        return True

    def left(self, now: float) -> float:
        """Give the number of retries that are left at ``now``; changes nothing, in any thread."""
        deposits = self._deposits.read(now, self.requests)
        allowed = self._minimum + self._share * deposits
        return max(0.0, allowed - self._withdrawals.read(now))


def backoff(retry: int, base: float, random: Random) -> float:
    """Give the seconds to wait before a counted retry.

    Full jitter: a random time from 0 to ``base`` times 2ⁿ, at most ten times ``base``, so that
    requests that failed at the same time are not retried at the same time.

    Args:
        retry: n, 0 for the first retry.
        base: Seconds.
        random: The source of the jitter.
    """
    return random.random() * base * min(2.0 ** min(retry, 10), _BACKOFF_CAP)


def decide(outcome: Outcome, settings: RetrySettings, budget: RetryBudget, now: float) -> Verdict:
    """Decide whether another attempt may follow, and whether it counts.

    A retry is withdrawn from the budget if ``RETRY_COUNTED`` is returned.

    Args:
        outcome: The result of the last attempt.
        settings: The settings of retries.
        budget: The retry budget of the upstream.
        now: Monotonic seconds.
    """
    failure = outcome.failure
    if not outcome.replayable:
        return Verdict.NO
    if failure is Failure.NOT_PROCESSED:
        return Verdict.RETRY_UNPROCESSED if outcome.refusals < MAX_REFUSALS else Verdict.NO
    if failure is None:
        eligible = outcome.status in settings.refused_statuses or (
            outcome.repeatable and (outcome.failed_event or outcome.status in settings.statuses)
        )
    elif failure.side is not Side.DESTINATION or (outcome.answered and not failure.held):
        return Verdict.NO
    elif failure.unsent:
        return _free(outcome.connect_retries < MAX_CONNECT_RETRIES)
    else:
        eligible = outcome.repeatable
        if eligible and outcome.reused and failure in _CLOSED and not outcome.resent:
            return Verdict.RETRY_FREE
    if eligible and outcome.retries < settings.attempts and budget.withdraw(now):
        return Verdict.RETRY_COUNTED
    return Verdict.NO


def goes_on(failure: Failure, *, repeatable: bool, replayable: bool, answered: bool) -> bool:
    """Decide whether a request may go on for ``retries.duration`` after a failure.

    Args:
        failure: The failure of the last attempt, or of the pick.
        repeatable: Whether the request may be sent twice.
        replayable: Whether its body can be sent again.
        answered: Whether any byte of a response has arrived.
    """
    no_response = failure.side is Side.DESTINATION or failure is Failure.NO_AVAILABLE_DESTINATION
    return no_response and repeatable and replayable and not answered


def _free(allowed: bool) -> Verdict:
    return Verdict.RETRY_FREE if allowed else Verdict.NO
