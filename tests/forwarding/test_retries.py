"""Retries: the decision table, the budget, the pause."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_proxy_di.errors import Failure, Side
from fastapi_proxy_di.forwarding.retries import (
    MAX_CONNECT_RETRIES,
    MAX_REFUSALS,
    Outcome,
    RetryBudget,
    Verdict,
    backoff,
    decide,
)
from fastapi_proxy_di.settings import RetrySettings

SETTINGS = RetrySettings(statuses="502,503", refused_statuses="429")
NO, FREE, COUNTED = Verdict.NO, Verdict.RETRY_FREE, Verdict.RETRY_COUNTED

CLOSED = Failure.RESPONSE_HEAD
CONNECT = Failure.CONNECT


def verdict(method: str = "GET", budget: RetryBudget | None = None, **fields: Any) -> Verdict:
    """Decide on one outcome, with budget left unless given."""
    outcome = Outcome(**{"repeatable": method == "GET", **fields})
    return decide(outcome, SETTINGS, budget or RetryBudget(0.2, 10, started=0.0), 0.0)


@pytest.mark.parametrize(
    "failure",
    [
        one
        for one in Failure
        if one.side is not Side.DESTINATION and one is not Failure.NOT_PROCESSED
    ],
)
def test_decide_never_retries_failures_of_other_sides(failure: Failure) -> None:
    """The client's failures and ours end the request."""
    assert verdict(failure=failure) is NO


@pytest.mark.parametrize(
    "failure", [CONNECT, Failure.RESOLVE, Failure.CONNECT_TIMEOUT, Failure.TLS]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_decide_dials_elsewhere_for_any_method(failure: Failure, method: str) -> None:
    """Three further destinations, without attempts and budget."""
    empty = RetryBudget(0, 0, started=0.0)
    verdicts = [
        verdict(method, empty, failure=failure, retries=9, connect_retries=made)
        for made in range(MAX_CONNECT_RETRIES + 1)
    ]

    assert verdicts == [FREE, FREE, FREE, NO]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_decide_sends_again_what_was_not_processed(method: str) -> None:
    """Any method, without attempts and budget; not for ever, and not with half a body."""
    failure = Failure.NOT_PROCESSED
    empty = RetryBudget(0, 0, started=0.0)
    first = verdict(method, empty, failure=failure, retries=9, resent=True)
    last = verdict(method, empty, failure=failure, refusals=MAX_REFUSALS - 1)
    ended = verdict(method, failure=failure, refusals=MAX_REFUSALS)
    consumed = verdict(method, failure=failure, replayable=False)

    assert {first, last} == {Verdict.RETRY_UNPROCESSED}
    assert (ended, consumed, failure.side) == (NO, NO, Side.PROXY)


@pytest.mark.parametrize(
    ("method", "fields", "expected"),
    [
        # A reused connection closed: what may be sent twice, once.
        ("GET", {"reused": True}, FREE),
        ("GET", {"reused": True, "resent": True}, COUNTED),
        ("POST", {"reused": True}, NO),
        ("POST", {"reused": True, "repeatable": True}, FREE),
        # A fresh one.
        ("GET", {}, COUNTED),
        ("POST", {}, NO),
        ("PUT", {}, NO),
        ("POST", {"repeatable": True}, COUNTED),
        # A byte of the response ends it.
        ("GET", {"answered": True}, NO),
        ("GET", {"answered": True, "reused": True}, NO),
        # A body that is gone cannot be sent again.
        ("GET", {"replayable": False}, NO),
        ("GET", {"reused": True, "replayable": False}, NO),
        # Attempts are used up.
        ("GET", {"retries": 1}, NO),
        ("GET", {"retries": 1, "reused": True}, FREE),
    ],
)
def test_decide_on_a_closed_connection(
    method: str, fields: dict[str, Any], expected: Verdict
) -> None:
    """The table, row by row."""
    assert verdict(method, failure=CLOSED, **fields) is expected
    assert verdict(method, failure=Failure.REQUEST_WRITE, **fields) is expected


@pytest.mark.parametrize(
    "failure",
    [Failure.FIRST_BYTE_TIMEOUT, Failure.ACTIVITY_TIMEOUT, Failure.RESPONSE_MALFORMED],
)
def test_decide_counts_failures_other_than_a_stale_connection(failure: Failure) -> None:
    """On a reused connection, too."""
    assert verdict(failure=failure, reused=True) is COUNTED
    assert verdict("POST", failure=failure, reused=True) is NO


@pytest.mark.parametrize(
    ("method", "fields", "expected"),
    [
        ("GET", {"status": 503}, COUNTED),
        ("GET", {"status": 500}, NO),
        ("GET", {"status": 503, "retries": 1}, NO),
        ("GET", {"status": 503, "replayable": False}, NO),
        ("POST", {"status": 503}, NO),
        ("POST", {"status": 503, "repeatable": True}, COUNTED),
        ("POST", {"status": 429}, COUNTED),
        ("GET", {"status": 429}, COUNTED),
        ("POST", {"status": 429, "replayable": False}, NO),
        ("POST", {"status": 429, "retries": 1}, NO),
    ],
)
def test_decide_on_listed_statuses(method: str, fields: dict[str, Any], expected: Verdict) -> None:
    """``statuses`` for repeatable requests only, ``refused_statuses`` for any."""
    assert verdict(method, answered=True, **fields) is expected


def test_decide_withdraws_only_counted_retries_from_the_budget() -> None:
    """Refusals for other reasons withdraw nothing; an empty budget refuses."""
    budget = RetryBudget(0, 1, started=0.0)

    assert verdict("POST", budget, failure=CLOSED) is NO
    assert verdict("GET", budget, failure=CLOSED, retries=1) is NO
    assert verdict("GET", budget, failure=CLOSED, reused=True) is FREE
    assert verdict("GET", budget, failure=CLOSED) is COUNTED
    assert verdict("GET", budget, failure=CLOSED) is NO


def test_budget_allows_a_minimum_and_a_share() -> None:
    """Ten, and a fifth of the requests."""
    budget = RetryBudget(0.2, 10, started=0.0)
    for _ in range(100):
        budget.requests += 1

    assert budget.left(0.0) == 30
    assert [budget.withdraw(0.0) for _ in range(31)] == [True] * 30 + [False]
    assert budget.left(0.0) == 0


def test_budget_fills_again_as_the_window_moves() -> None:
    """Two windows later only the minimum is left."""
    budget = RetryBudget(0.2, 3, started=0.0)
    for _ in range(100):
        budget.requests += 1
    while budget.withdraw(0.0):
        pass
    assert budget.withdraw(15.0)

    assert [budget.withdraw(30.0) for _ in range(4)] == [True, True, True, False]


def test_budget_after_a_long_calm_counts_recent_requests_only() -> None:
    """Those of the last ten of a thousand seconds, at an even rate."""
    budget = RetryBudget(0.2, 10, started=0.0)
    budget.requests = 100_000

    assert budget.left(1000.0) == pytest.approx(10 + 0.2 * 1000)
    assert budget.withdraw(1000.0)
    assert budget.left(1000.0) == pytest.approx(10 + 0.2 * 1000 - 1)


@given(st.floats(0, 1), st.integers(0, 20), st.integers(1, 200), st.integers(0, 100))
def test_budget_limits_a_storm(share: float, minimum: int, rate: int, seed: int) -> None:
    """All requests fail for a minute: at most 1 + share, and the minimum, are sent."""
    budget = RetryBudget(share, minimum, started=0.0)
    random = Random(seed)
    requests = retries = 0
    now = 0.0
    while now < 60:
        now += random.expovariate(rate)
        budget.requests += 1
        requests += 1
        retries += budget.withdraw(now)

    # Seven windows touch a minute; half a request of rounding in each.
    assert retries <= share * requests * 1.1 + 7 * (minimum + 1)


def test_backoff_is_fully_jittered_and_capped() -> None:
    """From 0 to base times 2ⁿ, at most ten times the base."""
    random = Random(1)
    for retry, most in ((0, 0.025), (1, 0.05), (2, 0.1), (3, 0.2), (4, 0.25), (10_000, 0.25)):
        pauses = [backoff(retry, 0.025, random) for _ in range(500)]

        assert 0 <= min(pauses) < most / 10
        assert most * 0.9 < max(pauses) <= most


@pytest.mark.parametrize("failure", [one for one in Failure if one.held])
def test_decide_counts_streams_that_failed_while_they_were_held(failure: Failure) -> None:
    """Although bytes of the response have arrived."""
    assert verdict(failure=failure, answered=True) is COUNTED
    assert verdict("POST", failure=failure, answered=True) is NO
    assert verdict(failure=failure, answered=True, replayable=False) is NO
    assert verdict(failure=failure, answered=True, retries=1) is NO


def test_decide_counts_an_event_of_failure() -> None:
    """As a listed status."""
    assert verdict(status=200, failed_event=True) is COUNTED
    assert verdict("POST", status=200, failed_event=True) is NO
    assert verdict(status=200) is NO
