"""What an upstream does by itself while it runs."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_proxy_di.observability.counts import GONE
from fastapi_proxy_di.upstream.composition import compose
from fastapi_proxy_di.upstream.control import Control
from tests.support.gateways import billing
from tests.support.virtual_time import run_virtually


def test_counts_of_removed_destinations_are_gone_after_an_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The running upstream moves them; recent durations are those of one to two minutes."""

    async def run() -> None:
        running = compose(billing("http://a", "http://b"))
        metrics = running.metrics
        monkeypatch.setattr(metrics, "_clock", asyncio.get_running_loop().time)
        await running.start()
        counts = metrics.of(running.pool.destinations[0])
        counts.first_byte.observe(0.1)
        Control(running).replace_destinations(["http://a"])
        await asyncio.sleep(90)
        assert counts.recent()[0].count == 1
        await asyncio.sleep(90)
        assert counts.recent()[0].count == 0
        assert [one.url for one in metrics.all()] == ["http://a", "http://b"]
        await asyncio.sleep(3600)
        assert [one.url for one in metrics.all()] == ["http://a", GONE]
        await running.aclose()

    run_virtually(run())
