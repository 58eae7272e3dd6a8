"""Decides whether another attempt may follow.

Owns that decision, the budget and the pause before a retry. Must not know pools, transports or
the request, beyond what ``Outcome`` says about it.

```text
what happened                                 which requests                    verdict
failure of the client's or ours               -                                 NO
no connection                                 any, 3 times                      RETRY_FREE
a reused connection closed, nothing written   any, once                         RETRY_FREE
a reused connection closed, no response byte  repeatable, once                  RETRY_FREE
any other failure before a response byte      repeatable, or nothing written    RETRY_COUNTED
a response with a listed status               repeatable                        RETRY_COUNTED
anything else, or attempts or budget used up  -                                 NO
```

All retries need a body that can be sent again. *Repeatable* is a listed method or a request
with ``Idempotency-Key``.
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
    "Outcome",
    "RetryBudget",
    "Verdict",
    "backoff",
    "decide",
]

MAX_CONNECT_RETRIES: Final = 3
BUDGET_WINDOW_SECONDS: Final = 10.0
# Envoy's: a pause beyond ten times the base helps no request that is waiting.
_BACKOFF_CAP: Final = 10

# A destination that closes an idle connection just as it is used shows up as one of these.
_CLOSED: Final = frozenset({Failure.REQUEST_WRITE, Failure.RESPONSE_HEAD})


class Verdict(Enum):
    """Decision whether another attempt follows, and whether it counts."""

    NO = "no"
    RETRY_FREE = "free"
    """Another attempt, uncounted: at another destination after a failed dial,
    on a fresh connection after a reused one had closed."""
    RETRY_COUNTED = "counted"
    """Another attempt, taken from the attempts and the budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One attempt as far as the decision needs it, and what the request has used so far.

    Attributes:
        failure: Where it broke, ``None`` if a response came.
        status: Status of that response, ``None`` if none came.
        repeatable: Whether the request may be sent twice.
        reused: Whether its connection had served before.
        written: Whether any byte of the request was written.
        answered: Whether any byte of the final response arrived.
        replayable: Whether all that was read of the body can be sent again; true if
            nothing was read.
        retries: Counted retries the request has made.
        connect_retries: Free retries after failed dials.
        resent: Whether it has used its free retry on a fresh connection.
    """

    failure: Failure | None = None
    status: int | None = None
    repeatable: bool = False
    reused: bool = False
    written: bool = True
    answered: bool = False
    replayable: bool = True
    retries: int = 0
    connect_retries: int = 0
    resent: bool = False


class RetryBudget:
    """Counted retries allowed over ten seconds: a minimum and a share of the requests.

    It keeps retries from multiplying an outage: requests sent upstream stay
    within ``1 + share`` times the clients' (and the minimum).

    Args:
        share: Retries per request.
        minimum: Retries per window that are always allowed.
        window: Seconds.

    Attributes:
        requests: Requests of clients so far; counted before the first attempt of each.
    """

    __slots__ = (
        "_deposits",
        "_minimum",
        "_share",
        "_withdrawals",
        "requests",
    )

    def __init__(
        self, share: float, minimum: int, *, window: float = BUDGET_WINDOW_SECONDS
    ) -> None:
        self._share = share
        self._minimum = minimum
        self.requests: int = 0
        self._deposits = RollingTotal(window)
        self._withdrawals = RollingCount(window)

    def withdraw(self, now: float) -> bool:
        """Take one retry at ``now`` (monotonic seconds); false if there is none left."""
        if self.left(now) < 1:
            return False
        self._withdrawals.add(now)
        return True

    def left(self, now: float) -> float:
        """Give the retries that are left at ``now``, for status."""
        deposits = self._deposits.read(now, self.requests)
        allowed = self._minimum + self._share * deposits
        return max(0.0, allowed - self._withdrawals.read(now))


def backoff(retry: int, base: float, random: Random) -> float:
    """Give the seconds to wait before a counted retry.

    Full jitter: anything from nothing to ``base`` times 2ⁿ, at most ten times ``base``, so that
    requests that failed together do not come back together.

    Args:
        retry: n, 0 for the first retry.
        base: Seconds.
        random: Source of the jitter.
    """
    return random.random() * base * min(2.0 ** min(retry, 10), _BACKOFF_CAP)


def decide(outcome: Outcome, settings: RetrySettings, budget: RetryBudget, now: float) -> Verdict:
    """Say whether another attempt may follow, and whether it counts.

    ``RETRY_COUNTED`` has been withdrawn from the budget when it is returned.

    Args:
        outcome: How the last attempt went.
        settings: Of the retries.
        budget: Of the upstream.
        now: Monotonic seconds.
    """
    failure = outcome.failure
    if not outcome.replayable:
        return Verdict.NO
    if failure is None:
        eligible = outcome.repeatable and outcome.status in settings.statuses
    elif failure.side is not Side.DESTINATION or outcome.answered:
        return Verdict.NO
    elif failure.unsent:
        return _free(outcome.connect_retries < MAX_CONNECT_RETRIES)
    else:
        # Without a byte written the destination has done nothing, whatever the method.
        eligible = outcome.repeatable or not outcome.written
        if eligible and outcome.reused and failure in _CLOSED and not outcome.resent:
            return Verdict.RETRY_FREE
    if eligible and outcome.retries < settings.attempts and budget.withdraw(now):
        return Verdict.RETRY_COUNTED
    return Verdict.NO


def _free(allowed: bool) -> Verdict:
    return Verdict.RETRY_FREE if allowed else Verdict.NO
