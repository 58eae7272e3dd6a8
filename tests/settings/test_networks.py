"""Networks of trusted peers."""

from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from fastapi_proxy_di.settings import (
    ForwardedSettings,
)


def test_networks_come_from_text_lists_and_networks() -> None:
    """An address is a network of one."""
    network = ip_network("10.0.0.0/8")
    expected = (network, ip_network("fd00::1/128"))

    assert (
        expected
        == ForwardedSettings.model_validate(
            {"trusted_proxies": "10.0.0.0/8, fd00::1"}
        ).trusted_proxies
    )
    assert expected[:1] == ForwardedSettings(trusted_proxies=(network,)).trusted_proxies
    every = ip_network("::/0")
    assert ForwardedSettings.model_validate({"trusted_proxies": every}).trusted_proxies == (every,)


@pytest.mark.parametrize("text", ["*", "10.0.0.1/8", "localhost"])
def test_networks_refuse_anything_else(text: str) -> None:
    """Trusting every peer must be written as networks; host bits are refused."""
    with pytest.raises(ValidationError, match=r"0\.0\.0\.0/0 and ::/0 are every address"):
        ForwardedSettings.model_validate({"trusted_proxies": text})
