"""Settings of discovery."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fastapi_proxy_di.settings import DiscoverySettings
from tests.support.gateways import billing


def test_discovery_has_defaults() -> None:
    """The last list serves five minutes, and sources must find something at start."""
    settings = DiscoverySettings()

    assert (settings.refresh, settings.keep, settings.on_empty) == (None, 300, "keep")
    assert (settings.required, settings.family, settings.nameservers) == (True, "auto", ())


def test_discovery_is_read_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Durations have units, and name servers are separated by commas."""
    monkeypatch.setenv("UPSTREAM_BILLING_DISCOVERY__REFRESH", "500ms")
    monkeypatch.setenv("UPSTREAM_BILLING_DISCOVERY__NAMESERVERS", "10.0.0.2, [fd00::1]:5353")
    settings = billing("http://a").discovery

    assert settings.refresh == 0.5
    assert settings.nameservers == ("10.0.0.2", "[fd00::1]:5353")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nameservers": "dns.internal"}, "is not the address of a DNS server"),
        ({"nameservers": ["10.0.0.2:0"]}, "is not the address of a DNS server"),
        ({"refresh": 0}, "must be more than 0"),
        ({"keep": -1}, "between 0 and 366 days"),
        ({"on_empty": "ignore"}, "keep"),
        ({"family": "ipv5"}, "ipv4"),
    ],
)
def test_wrong_discovery_is_refused(fields: dict[str, Any], message: str) -> None:
    """With the mend in the text."""
    with pytest.raises(ValidationError, match=message):
        DiscoverySettings(**fields)


def test_sources_are_apart_from_destinations() -> None:
    """Among the given destinations, and not among those with an address."""
    settings = billing("http://a", "dns+http://api.internal:8080")

    assert [one.url for one in settings.destination_settings] == ["http://a"]
    assert [one.url for one in settings.given_destinations] == [
        "http://a",
        "dns+http://api.internal:8080",
    ]
