"""Settings of one destination."""

import math

import pytest
from pydantic import ValidationError

from fastapi_proxy_di.settings import (
    DestinationSettings,
)


def test_destination_parses_its_addresses_once() -> None:
    """The parsed address is kept; probes use their own address if there is one."""
    plain = DestinationSettings(url="HTTP://A:80/base/")
    probed = DestinationSettings(url="http://a", health_url="http://a:9000/", health_path="/up")

    assert plain.url == "http://a/base"
    assert plain.address is plain.address
    assert plain.probe_address is plain.address
    assert probed.probe_address.port == 9000
    assert plain == DestinationSettings(url="http://a/base")


@pytest.mark.parametrize("weight", [0, -1, math.inf, math.nan])
def test_destination_has_a_weight_above_zero(weight: float) -> None:
    """To send no traffic to a destination, drain it."""
    with pytest.raises(ValidationError, match="weight"):
        DestinationSettings(url="http://a", weight=weight)


@pytest.mark.parametrize(
    ("url", "host", "authority", "server_name"),
    [
        ("http://10.0.0.1:8080", None, b"10.0.0.1:8080", "10.0.0.1"),
        ("http://10.0.0.1:8080", "API.internal", b"api.internal", "api.internal"),
        ("https://10.0.0.1:8443", "api.internal:8443", b"api.internal:8443", "api.internal"),
        ("https://[fd00::1]", "api.internal.", b"api.internal", "api.internal"),
    ],
)
def test_destination_host_is_the_name_in_host_and_tls(
    url: str, host: str | None, authority: bytes, server_name: str
) -> None:
    """The address that is dialled stays."""
    address = DestinationSettings(url=url, host=host).address

    assert (address.authority, address.server_name) == (authority, server_name)
    assert address.url == DestinationSettings(url=url).address.url
    assert address.host == DestinationSettings(url=url).address.host


@pytest.mark.parametrize(
    ("health_url", "host", "authority"),
    [
        ("https://10.0.0.1:9000", "api.internal:8080", b"api.internal:9000"),
        ("https://10.0.0.1", "[fd00::1]", b"[fd00::1]"),
        ("https://10.0.0.1:9000", None, b"10.0.0.1:9000"),
        ("https://health.internal:9000", "api.internal", b"health.internal:9000"),
    ],
)
def test_destination_host_holds_for_probes_of_the_same_machine(
    health_url: str, host: str | None, authority: bytes
) -> None:
    """With the port of the probe."""
    settings = DestinationSettings(url="https://10.0.0.1", host=host, health_url=health_url)

    assert settings.probe_address.authority == authority


def test_source_is_no_destination() -> None:
    """It is parsed, and has no address to probe."""
    settings = DestinationSettings(url="DNS+http://API.internal:80", weight=2)

    assert settings.url == settings.shown == "dns+http://api.internal"
    assert settings.source is not None
    assert DestinationSettings(url="http://a").source is None
    with pytest.raises(ValidationError, match="give health_path"):
        DestinationSettings(url="dns+http://a", health_url="http://a")
