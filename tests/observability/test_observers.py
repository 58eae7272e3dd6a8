"""Metrics, spans and access records follow one exchange; without telemetry only metrics do."""

from __future__ import annotations

import logging

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message

from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.observability.access_record import AccessRecord, AccessRecords
from fastapi_proxy_di.observability.metrics import Metrics
from fastapi_proxy_di.observability.observers import UpstreamObservers
from fastapi_proxy_di.observability.telemetry import Telemetry
from fastapi_proxy_di.observability.tracing import Tracing
from fastapi_proxy_di.testing import refuse, reply, stand_in
from tests.pools.samples import pool_of
from tests.testing.apps import gateway_app


async def send(message: Message) -> None:
    """Take nothing."""


def test_exchange_has_no_observer_unless_one_is_wanted() -> None:
    """So that nothing is called for each piece of a stream; with ``explain`` the record is one."""
    exchange = Exchange({"type": "http", "headers": []}, None, send, b"/", b"")
    telemetry = Telemetry()
    tracing = Tracing("billing", telemetry, lambda scope, picked: "first")
    wanted = {}
    for explain in ("off", "header"):
        records = AccessRecords("billing", pool_of(1), lambda *_: "first", explain, telemetry)
        observers = UpstreamObservers(Metrics("billing"), tracing, records)
        wanted[explain] = observers.observe(exchange)

    assert wanted["off"] is None
    assert isinstance(wanted["header"], AccessRecord)


def test_both_see_every_step(caplog: pytest.LogCaptureFixture) -> None:
    """With the access log on, the counts are the same as without."""
    app = gateway_app()
    counts = []
    for level in (logging.INFO, logging.WARNING):
        caplog.set_level(level, "fastapi_proxy_di.access")
        with (
            stand_in(app, "billing", {"b": refuse(), "a": reply("123")}, policy="first") as billing,
            TestClient(app) as client,
        ):
            client.get("/billing/x")
            (running,) = billing._running.values()
            metrics = running.upstream.metrics
            counts.append(
                {
                    each.url: (
                        each.attempts,
                        each.failures,
                        each.retries,
                        [*each.durations],
                    )
                    for each in metrics.all()
                }
            )

    assert (
        counts[0]
        == counts[1]
        == {
            "http://b": (1, {"connect": 1}, {}, [("GET", None, "connect")]),
            "http://a": (1, {}, {"connect": 1}, [("GET", 200, None)]),
        }
    )
    (record,) = [one for one in caplog.records if one.name == "fastapi_proxy_di.access"]
    assert vars(record)["sent_bytes"] == 3
