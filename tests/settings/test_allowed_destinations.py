"""Settings of addresses that code may give, and upstreams without destinations."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from pydantic import ValidationError

from fastapi_proxy_di import AllowedDestinationsSettings, SettingsError, UpstreamSettings
from fastapi_proxy_di.settings import load_upstream


class Notebooks(UpstreamSettings, name="notebooks"):
    """Settings without destinations of their own."""


PREFIX = "UPSTREAM_NOTEBOOKS_ALLOWED_DESTINATIONS__"


def test_nothing_is_allowed_by_default() -> None:
    """No origin, no network, no credentials."""
    allowed = AllowedDestinationsSettings()

    assert not allowed.some
    assert (allowed.origins, allowed.networks, allowed.credentials) == ((), (), False)


def test_lists_are_read_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Separated by commas; then an upstream needs no destinations."""
    monkeypatch.setenv(f"{PREFIX}ORIGINS", "http://*.notebooks.svc:8888, https://api.test:*")
    monkeypatch.setenv(f"{PREFIX}NETWORKS", "10.0.0.0/8,fd00::/8")
    monkeypatch.setenv(f"{PREFIX}CREDENTIALS", "true")

    settings = load_upstream("notebooks")

    allowed = settings.allowed_destinations
    assert allowed.some
    assert allowed.origins == ("http://*.notebooks.svc:8888", "https://api.test:*")
    assert [one.any_label for one in allowed.parsed_origins] == [True, False]
    assert allowed.networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert allowed.credentials is True
    assert settings.destination_settings == ()


@pytest.mark.parametrize("empty", [{}, {"destinations": None}, {"destinations": []}])
def test_destinations_may_be_empty_where_some_are_allowed(empty: dict[str, Any]) -> None:
    """By a network alone as well."""
    settings = Notebooks(
        **empty, allowed_destinations=AllowedDestinationsSettings(networks=["10.0.0.0/8"])
    )

    assert settings.destination_settings == ()


def test_destinations_are_required_where_none_are_allowed() -> None:
    """The text is that of every upstream."""
    with pytest.raises(SettingsError, match=r"DESTINATIONS\): is required; set it, e.g. http://"):
        load_upstream("notebooks")
    with pytest.raises(ValidationError, match="is empty; give at least one address"):
        Notebooks(destinations=[])


def test_faulty_list_is_the_only_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Destinations are not missed then."""
    monkeypatch.setenv(f"{PREFIX}ORIGINS", "http://*")

    with pytest.raises(SettingsError) as raised:
        load_upstream("notebooks")

    text = str(raised.value)
    assert f"allowed_destinations.origins.0 ({PREFIX}ORIGINS): " in text
    assert "neither the whole leftmost label nor the port" in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("network", ["::ffff:10.0.0.0/104", "2002:a00::/24", "64:ff9b::/96"])
def test_network_of_ipv4_in_ipv6_form_is_a_fault(network: str) -> None:
    """Its addresses are judged as IPv4, so that it would allow nothing."""
    with pytest.raises(ValidationError, match="give the IPv4 network"):
        AllowedDestinationsSettings(networks=[network])


@pytest.mark.parametrize(
    ("origin", "networks", "reason"),
    [
        ("http://127.0.0.1:*", [], "loopback"),
        ("http://[fe80::1]", [], "link-local"),
        ("http://10.0.0.1", ["10.1.0.0/16"], "outside of the networks"),
    ],
)
def test_origin_that_is_always_refused_is_a_fault(
    origin: str, networks: list[str], reason: str
) -> None:
    """It would never be reached."""
    with pytest.raises(ValidationError, match=f"refused: {reason}; list its network"):
        AllowedDestinationsSettings(origins=[origin], networks=networks)


@pytest.mark.parametrize(
    ("origin", "networks"),
    [
        ("http://127.0.0.1:*", ["127.0.0.1/32"]),
        ("http://10.0.0.1", []),
        ("http://localhost", []),
        ("http://*.localhost", []),
    ],
)
def test_origin_that_may_be_reached_is_none(origin: str, networks: list[str]) -> None:
    """What a name leads to is judged at the dial."""
    assert AllowedDestinationsSettings(origins=[origin], networks=networks).some


@pytest.mark.parametrize("limit", [0, -1])
def test_dynamic_destinations_are_at_least_one(limit: int) -> None:
    """There is no way to turn the limit off."""
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Notebooks(destinations=["http://a"], limits={"dynamic_destinations": limit})
