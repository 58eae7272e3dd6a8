"""The timers of a supervisor run in no context of a request, though a request may start them."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.health.slow_start import SlowStart
from fastapi_proxy_di.health.thresholds import Threshold
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import EjectionSettings
from fastapi_proxy_di.supervision.events import DestinationReadmitted, Event, Events
from fastapi_proxy_di.supervision.supervisor import Supervisor
from tests.pools.samples import pool_of
from tests.support.virtual_time import run_virtually

REQUEST: ContextVar[str] = ContextVar("request", default="none")


def supervised(*, slow_start: float = 0) -> tuple[Supervisor, Events]:
    """Make a supervisor of three destinations, within a request."""
    _ = REQUEST.set("first")
    pool, events = pool_of(3), Events()
    ejector = Ejector(pool, EjectionSettings())
    threshold = Threshold(fall=2, rise=1)
    return Supervisor(pool, ejector, threshold, SlowStart(slow_start), events, window=15), events


def test_readmission_has_no_context_of_a_request() -> None:
    """Listeners of its event see none of the request whose failure has ejected the destination."""
    seen: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, DestinationReadmitted):
            seen.append(REQUEST.get())

    async def scenario() -> None:
        supervisor, events = supervised()
        events.subscribe(listen)
        for destination in supervisor.pool.destinations[:2]:
            for _ in range(5):
                supervisor.failed(destination, "connect")
            await asyncio.sleep(10)
        await asyncio.sleep(60)
        supervisor.close()

    run_virtually(scenario())

    assert seen
    assert set(seen) == {"none"}


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Ejector, "tick"), (Pool, "turn_window"), (SlowStart, "due")],
    ids=["ejection window", "window of requests", "slow start"],
)
def test_repeated_timer_has_no_context_of_a_request(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the request's variables would be kept as long as the upstream runs."""
    seen: list[str] = []
    plain = getattr(owner, name)

    def seeing(*arguments: Any) -> Any:
        seen.append(REQUEST.get())
        return plain(*arguments)

    async def scenario() -> None:
        supervisor, _ = supervised(slow_start=30)
        (first, *_) = supervisor.pool.destinations
        for ok in (False, False, True):
            supervisor.probed(first, ok, None, "")  # now it warms up
        seen.clear()
        await asyncio.sleep(60)
        supervisor.set_window(5)
        await asyncio.sleep(60)
        supervisor.close()

    monkeypatch.setattr(owner, name, seeing)
    run_virtually(scenario())

    assert len(seen) > 1
    assert set(seen) == {"none"}
