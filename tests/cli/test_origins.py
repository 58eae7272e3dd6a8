"""Where settings came from: rows of classes, and of objects that code has made."""

from __future__ import annotations

import pytest

from fastapi_proxy_di import ProxySettings, UpstreamSettings
from fastapi_proxy_di.cli.origins import given_in_code, origins


class Billing(UpstreamSettings, name="billing"):
    """A class with a field of its own and a default."""

    preserve_host: bool = True
    licence: str = ""


def test_rows_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value that is no default, and fields of its own without their values."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://a,http://b")
    monkeypatch.setenv("UPSTREAM_BILLING_LICENCE", "geheim")
    rows = origins("billing", Billing(), UpstreamSettings)

    assert rows == [
        [
            "billing",
            "destinations",
            "http://a, http://b",
            "UPSTREAM_BILLING_DESTINATIONS (environment)",
        ],
        ["billing", "licence", "(own field)", "UPSTREAM_BILLING_LICENCE (environment)"],
        ["billing", "preserve_host", "True", "class default"],
    ]


def test_rows_of_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable may have set a value too; secrets are masked."""
    monkeypatch.setenv("UPSTREAM_BILLING_TIMEOUTS__CONNECT", "3s")
    settings = Billing(
        destinations=["http://a"], licence="geheim", request_headers={"x-key": "geheim"}
    )
    rows = given_in_code("billing", settings, UpstreamSettings)

    assert [(field, source) for _, field, _, source in rows] == [
        ("destinations", "code"),
        ("timeouts", "code, or UPSTREAM_BILLING_TIMEOUTS__CONNECT (environment)"),
        ("request_headers", "code"),
        ("licence", "code"),
    ]
    assert "geheim" not in str(rows)


def test_rows_of_the_app() -> None:
    """Defaults are left out."""
    assert given_in_code("(app)", ProxySettings(request_id=True), ProxySettings) == [
        ["(app)", "request_id", "True", "code"]
    ]
