"""Metrics and access records follow one exchange together."""

from __future__ import annotations

import logging

import pytest
from fastapi.testclient import TestClient

from fastapi_proxy_di.testing import refuse, reply, stand_in
from tests.testing.apps import gateway_app


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
                        [labels[3:] for labels in each.durations],
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
