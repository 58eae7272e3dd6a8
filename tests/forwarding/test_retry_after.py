"""Retry-After of a destination that asks for a pause."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from fastapi_proxy_di.forwarding.outcomes import retry_after_seconds
from fastapi_proxy_di.supervision.events import DestinationEjected, Event
from tests.support.gateways import gateway
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"7", 7), (b"0", 0), (b"-1", None), (b"soon", None), (b"", None), (b"1.5", None)],
)
def test_retry_after_is_read_as_seconds(value: bytes, seconds: float | None) -> None:
    """A whole number, or nothing."""
    assert retry_after_seconds([(b"x", b"1"), (b"retry-after", value)]) == seconds


def test_retry_after_is_read_as_a_date() -> None:
    """The seconds until then; 0 for the past."""
    soon = formatdate(time.time() + 60, usegmt=True).encode("ascii")
    past = b"Sun, 06 Nov 1994 08:49:37 GMT"

    assert retry_after_seconds([(b"retry-after", soon)]) == pytest.approx(60, abs=2)
    assert (retry_after_seconds([(b"retry-after", past)]) or 0) < 0


def test_retry_after_may_be_missing() -> None:
    """Most responses have none."""
    assert retry_after_seconds([(b"x", b"1")]) is None


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("status", "after", "respect", "served"),
    [
        (429, b"60", True, [429, 200, 200]),
        (503, b"60", True, [503, 200, 200]),
        (503, b"never", True, [503, 503, 503]),
        (429, b"60", False, [429, 429, 429]),
        (500, b"60", True, [500, 500, 500]),
    ],
)
async def test_retry_after_ejects_the_destination(
    status: int, after: bytes, respect: bool, served: list[int]
) -> None:
    """For its time, if the settings say so; the response itself reaches its client."""
    events: list[Event] = []
    async with (
        ScriptedOrigin(always(response_bytes(status, headers=[(b"Retry-After", after)]))) as busy,
        ScriptedOrigin() as other,
        gateway(
            busy.url, other.url, policy="first", ejection={"respect_retry_after": respect}
        ) as gate,
    ):
        gate.balancer.subscribe(events.append)
        statuses = [(await fetch(gate.address, target="/billing/x")).status for _ in range(3)]

    assert statuses == served
    assert events == (
        [DestinationEjected("billing", busy.url, 60.0, "retry_after")] if 200 in served else []
    )
