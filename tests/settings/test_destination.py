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
