"""What the tests of settings and their sources share: a declared upstream and its variables."""

import pytest
from pydantic import SecretStr

from fastapi_proxy_di.settings import (
    Destinations,
    HealthSettings,
    UpstreamSettings,
)


class Billing(UpstreamSettings, name="billing"):
    """A declared upstream, with annotations that people write."""

    destinations: Destinations = ["http://class:1"]
    policy: str = "round_robin"
    health: HealthSettings = HealthSettings(path="/class", fall=7)
    request_headers: dict[str, SecretStr] = {
        "X-Tenant": SecretStr("acme"),
        "X-Key": SecretStr("class"),
    }
    max_requests: int = 5
    team: str = "payments"


def environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Set variables of the upstream ``billing``."""
    for name, value in values.items():
        monkeypatch.setenv(f"UPSTREAM_BILLING_{name}", value)


def urls(settings: UpstreamSettings) -> list[str]:
    """Give the addresses in order."""
    return [destination.url for destination in settings.destination_settings]
