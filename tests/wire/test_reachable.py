"""IP addresses that a connection may be opened to."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from fastapi_proxy_di.wire.reachable import holds_other_addresses, refusal
from tests.support.dynamic_addresses import REFUSED_IPS


@pytest.mark.parametrize(("address", "reason"), REFUSED_IPS)
def test_address_is_refused_unless_it_is_listed(address: str, reason: str) -> None:
    """Also within IPv6, and where a network of everything is listed."""
    everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))

    assert refusal(address, ()) == reason
    assert refusal(address, everything) == reason


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "8.8.8.8",
        "fd00::1",
        "2606:4700::1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:a00:1::",
    ],
)
def test_private_and_global_addresses_are_allowed(address: str) -> None:
    """Destinations are usually there."""
    assert refusal(address, ()) is None


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.0.1", "127.0.0.1/32"),
        ("::ffff:127.0.0.1", "127.0.0.0/8"),
        ("::1", "::1/128"),
        ("fe80::1%eth0", "fe80::/64"),
        ("100.100.100.200", "100.100.100.200/32"),
        ("64:ff9b:1::1", "64:ff9b:1::/48"),
    ],
)
def test_listed_address_is_allowed(address: str, network: str) -> None:
    """By a network within the range of such addresses."""
    assert refusal(address, (ip_network("10.0.0.0/8"), ip_network(network))) is None


@pytest.mark.parametrize(
    "address", ["192.168.0.1", "8.8.8.8", "::ffff:192.168.0.1", "fd00::1", "2606:4700::1"]
)
def test_every_address_lies_in_the_networks(address: str) -> None:
    """Where networks are set."""
    assert refusal(address, (ip_network("10.0.0.0/8"),)) == "outside of the networks"


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("::ffff:10.0.0.0/104", True),
        ("2002:a00::/24", True),
        ("64:ff9b::/96", True),
        ("::/0", False),
        ("fd00::/8", False),
        ("10.0.0.0/8", False),
    ],
)
def test_network_of_ipv4_within_ipv6_is_known(network: str, expected: bool) -> None:
    """Its addresses are judged by the IPv4 address, so listing it has no effect."""
    assert holds_other_addresses(ip_network(network)) is expected
