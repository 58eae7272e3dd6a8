"""The settings of an app: their variables, faults and sources."""

import os

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastapi_proxy_di import ProxySettings, TelemetrySettings, proxy_lifespan
from fastapi_proxy_di.settings import (
    effective_sources,
    read_proxy_settings,
    unknown_variables,
)


def test_nothing_set() -> None:
    """The defaults."""
    settings, faults = read_proxy_settings()

    assert not faults
    assert settings == ProxySettings()
    assert settings is not None
    assert settings.telemetry == TelemetrySettings(
        tracing=True, metrics=True, propagate="inject", baggage="own"
    )
    assert settings.request_id is False


def test_variables_change_one_field_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nested variable leaves the other fields of its model as they are."""
    monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__TRACING", "false")
    monkeypatch.setenv("FASTAPI_PROXY_REQUEST_ID", "true")

    settings = ProxySettings(telemetry=TelemetrySettings(propagate="pass"))

    assert settings.telemetry == TelemetrySettings(tracing=False, propagate="pass")
    assert settings.request_id is True


def test_faults_name_field_and_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of upstreams do."""
    monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__TRACNG", "false")
    monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__PROPAGATE", "b3")
    monkeypatch.setenv("FASTAPI_PROXY_REQUEST_ID", "perhaps")

    settings, faults = read_proxy_settings()

    assert settings is None
    assert faults == [
        (
            "ProxySettings: telemetry.propagate (FASTAPI_PROXY_TELEMETRY__PROPAGATE): "
            "must be 'inject', 'pass' or 'off', got 'b3'"
        ),
        (
            "ProxySettings: telemetry.tracng (FASTAPI_PROXY_TELEMETRY__TRACNG): is not a field; "
            "did you mean 'tracing'? There are tracing, metrics, propagate, baggage"
        ),
        (
            "ProxySettings: request_id (FASTAPI_PROXY_REQUEST_ID): is neither true nor false, "
            "got 'perhaps'"
        ),
    ]


def test_unknown_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable with the prefix that sets nothing is named with the one that was meant."""
    monkeypatch.setenv("FASTAPI_PROXY_REQUESTID", "true")

    assert unknown_variables(ProxySettings, os.environ) == [
        (
            "FASTAPI_PROXY_REQUESTID sets nothing of ProxySettings; did you mean "
            "FASTAPI_PROXY_REQUEST_ID?"
        )
    ]


def test_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each value comes from."""
    monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__BAGGAGE", "pass")

    sources = effective_sources(ProxySettings)

    assert sources["telemetry.baggage"] == "FASTAPI_PROXY_TELEMETRY__BAGGAGE (environment)"
    assert sources["request_id"] == "default"


def test_misspelt_variable_is_warned_of_at_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As those of upstreams are; also where the app has a class of its own."""

    class Own(ProxySettings):
        """Settings of an app with a variable of its own."""

        shop: str = ""

    app = FastAPI(lifespan=proxy_lifespan)
    proxy_lifespan.configure(app, Own())
    monkeypatch.setenv("FASTAPI_PROXY_REQUESTID", "true")
    monkeypatch.setenv("FASTAPI_PROXY_SHOP", "books")
    with TestClient(app):
        pass

    own = [one.getMessage() for one in caplog.records if one.name == "fastapi_proxy_di.settings"]
    assert own == [
        (
            "FASTAPI_PROXY_REQUESTID sets nothing of ProxySettings; did you mean "
            "FASTAPI_PROXY_REQUEST_ID?"
        )
    ]
