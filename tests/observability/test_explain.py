"""The reasons of picks: in a header and in the log."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fastapi_proxy_di.observability.explain import explanation
from fastapi_proxy_di.testing import (
    echo,
    refuse,
    reply,
    stand_in,
    too_many_requests,
)
from tests.pools.samples import pool_of, settings_of
from tests.testing.apps import Billing, gateway_app


def records(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Give the attributes of the records."""
    return [vars(one) for one in caplog.records if one.name == "fastapi_proxy_di.explain"]


def test_explain_is_off_by_default() -> None:
    """No response shows an address."""
    app = gateway_app()

    with stand_in(app, "billing", reply()), TestClient(app) as client:
        response = client.get("/billing/x")

    assert "x-proxy-explain" not in response.headers


def test_explain_shows_the_reason_in_a_header() -> None:
    """Policy, candidates, and the destinations left out; an entry for each attempt."""
    app = gateway_app()
    destinations = {
        "ejected": refuse(),
        "ok": reply(),
        "spare": reply(),
        "resting": reply(),
        "busy": reply(),
    }
    settings: dict[str, Any] = {
        "explain": "header",
        "policy": "first",
        "ejection": {"consecutive": 1, "max_share": 1},
    }

    with (
        stand_in(app, "billing", destinations, **settings) as billing,
        TestClient(app) as client,
    ):

        @app.post("/prepare")
        async def prepare(upstream: Billing) -> None:
            await upstream.drain("http://spare")
            upstream.configure_destination("http://busy", max_requests=1)
            upstream.configure_destination("http://resting", tier=1)

        client.post("/prepare")
        first = client.get("/billing/x").headers["x-proxy-explain"]
        billing.flip("resting", healthy=False)
        second = client.get("/billing/x").headers["x-proxy-explain"]

    assert first == (
        "first picked http://ejected of 3: http://ejected, http://ok, http://busy;"
        " out: http://spare (draining), http://resting (tier 1)"
        " | first picked http://ok of 2: http://ok, http://busy;"
        " out: http://ejected (tried), http://spare (draining), http://resting (tier 1)"
    )
    assert second == (
        "first picked http://ok of 2: http://ok, http://busy; out: http://ejected (ejected),"
        " http://spare (draining), http://resting (unhealthy)"
    )


def test_explain_shows_full_and_panic() -> None:
    """Limits and panic are reasons, too."""
    app = gateway_app()
    settings: dict[str, Any] = {"explain": "header", "policy": "first"}

    with (
        stand_in(app, "billing", {"a": reply(), "b": reply()}, **settings) as billing,
        TestClient(app) as client,
    ):

        @app.post("/prepare")
        async def prepare(upstream: Billing) -> None:
            upstream.configure_destination("http://a", max_requests=1)

        client.post("/prepare")
        client.get("/billing/x")
        full = client.get("/billing/x").headers["x-proxy-explain"]
        billing.flip(healthy=False)
        panic = client.get("/billing/x").headers["x-proxy-explain"]

    assert full == "first picked http://b of 1: http://b; out: http://a (full)"
    assert panic == "first in panic picked http://b of 1: http://b; out: http://a (full)"


def test_explain_shortens_long_lists() -> None:
    """A large pool is shortened."""
    app = gateway_app()
    many = {f"d{number}": reply() for number in range(20)}

    with (
        stand_in(app, "billing", many, policy="first", explain="header"),
        TestClient(app) as client,
    ):
        explained = client.get("/billing/x").headers["x-proxy-explain"]

    assert explained.startswith("first picked http://d0 of 20: http://d0, ")
    assert explained.endswith("http://d7 and 12 more")


def test_explain_logs_that_no_destination_is_available(caplog: pytest.LogCaptureFixture) -> None:
    """The log has picks and their absence; no header is set."""
    caplog.set_level(logging.INFO, "fastapi_proxy_di.explain")
    app = gateway_app()
    settings: dict[str, Any] = {"explain": "log", "when_none_available": "fail", "policy": "first"}

    with (
        stand_in(app, "billing", reply(), **settings) as billing,
        TestClient(app) as client,
    ):
        response = client.get("/billing/x")
        billing.flip(healthy=False)
        client.get("/billing/x")

    assert "x-proxy-explain" not in response.headers
    assert [(one["message"], one["destination"]) for one in records(caplog)] == [
        ("first picked http://billing of 1: http://billing", "http://billing"),
        ("first picked none of 0; out: http://billing (unhealthy)", None),
    ]


def test_explain_in_the_log_follows_its_level(caplog: pytest.LogCaptureFixture) -> None:
    """Below INFO the log says nothing."""
    caplog.set_level(logging.WARNING, "fastapi_proxy_di.explain")
    app = gateway_app()

    with stand_in(app, "billing", reply(), explain="log"), TestClient(app) as client:
        client.get("/billing/x")

    assert records(caplog) == []


@pytest.mark.parametrize(
    ("headers", "how"), [({"x-session": "7"}, b"affinity"), ({}, b"power_of_two_choices")]
)
def test_explain_sets_the_header_of_handshakes(headers: dict[str, str], how: bytes) -> None:
    """A 101 has the header; it names affinity for known clients."""
    app = gateway_app()
    affinity = {"header": "x-session", "key": "0123456789abcdef0123456789abcdef"}

    with (
        stand_in(app, "billing", echo(), explain="header", affinity=affinity),
        TestClient(app) as client,
        client.websocket_connect("/live", headers=headers) as live,
    ):
        fields: Any = live.extra_headers
        explained = dict(fields)[b"x-proxy-explain"]

    assert explained.startswith(how + b" picked http://billing of 1")


def test_explain_off_in_yaml_is_off() -> None:
    """YAML reads ``off`` as false."""
    app = gateway_app()

    with stand_in(app, "billing", reply(), explain=False), TestClient(app) as client:
        response = client.get("/billing/x")

    assert response.status_code == 200


def test_explain_names_a_destination_that_asked_for_a_pause() -> None:
    """Also in panic, in which ejected destinations are used again."""
    app = gateway_app()
    destinations = {"busy": too_many_requests(60), "down": reply()}
    settings: dict[str, Any] = {
        "explain": "header",
        "policy": "first",
        "ejection": {"respect_retry_after": True},
    }

    with (
        stand_in(app, "billing", destinations, **settings) as billing,
        TestClient(app) as client,
    ):
        client.get("/billing/x")
        billing.flip("down", healthy=False)
        text = client.get("/billing/x").headers["x-proxy-explain"]

    assert text == (
        "first in panic picked http://down of 1: http://down;"
        " out: http://busy (asked for a pause by Retry-After)"
    )


def test_explain_names_a_destination_without_its_first_probe() -> None:
    """It was added while the upstream ran."""
    pool = pool_of(1)
    (added,), _ = pool.replace([settings_of(0), settings_of(1)], await_probe=True)
    text = explanation(pool, "first", (), pool.destinations[0])

    assert text == (
        f"first picked {pool.destinations[0].url} of 1: {pool.destinations[0].url};"
        f" out: {added.url} (not probed yet)"
    )
