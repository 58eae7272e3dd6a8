"""Decides which IP addresses a connection may be opened to, for addresses that requests give.

A name says nothing about where it leads: whoever runs its name servers may let it lead to this
machine, to the instance metadata of a cloud, or to another one at the next look-up. So the IP
address itself is judged, right before each ``connect``. Pure.

Allowed without being listed are the globally reachable addresses and those of private networks
(RFC 1918, RFC 6598, RFC 4193): destinations are usually there.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, TypeAlias, cast

__all__ = ["Network", "holds_other_addresses", "refusal"]

Network: TypeAlias = IPv4Network | IPv6Network

_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052 section 2.1
_IPV4_INSIDE: Final = (IPv6Network("::ffff:0:0/96"), IPv6Network("2002::/16"), _NAT64)

_METADATA: Final = "metadata of a cloud"
_SPECIAL: Final[tuple[tuple[Network, str], ...]] = tuple(
    (ip_network(block), kind)
    for block, kind in (
        # Addresses of metadata services that are outside of the link-local ones.
        ("100.100.100.200/32", _METADATA),  # Alibaba
        ("168.63.129.16/32", _METADATA),  # Azure
        ("fd00:ec2::254/128", _METADATA),  # AWS
        ("fd20:ce::254/128", _METADATA),  # Google
        # The IANA special-purpose registries of IPv4 (RFC 6890), as far as they are not private.
        ("0.0.0.0/32", "unspecified"),
        ("0.0.0.0/8", "reserved"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved"),
        ("192.88.99.0/24", "reserved"),
        ("198.18.0.0/15", "reserved"),
        ("198.51.100.0/24", "reserved"),
        ("203.0.113.0/24", "reserved"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        # IPv6: everything but 2000::/3 (RFC 4291 section 2.4) and fc00::/7.
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
        ("::/3", "reserved"),  # IPv4-compatible ::/96, SIIT, and the local NAT64 64:ff9b:1::/48
        ("4000::/2", "reserved"),
        ("8000::/2", "reserved"),
        ("c000::/3", "reserved"),
        ("e000::/4", "reserved"),
        ("f000::/5", "reserved"),
        ("f800::/6", "reserved"),
        ("fe00::/7", "reserved"),
        # Of 2000::/3. 2001::/23 begins with Teredo (2001::/32), which leads to an IPv4 address.
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "reserved"),
        ("3fff::/20", "reserved"),
    )
)


def refusal(text: str, networks: Sequence[Network]) -> str | None:
    """Say why no connection is opened to an IP address.

    An IPv4 address within an IPv6 address (mapped, 6to4, NAT64) is judged in its place.

    Args:
        text: The IP address, with a zone or without.
        networks: The networks that every address must lie in; empty for no such rule. One of
            them allows loopback, link-local, multicast, unspecified, reserved and metadata
            addresses only if the network lies within their range, so ``0.0.0.0/0`` does not.

    Returns:
        The reason, ``None`` if a connection may be opened.
    """
    address = _innermost(ip_address(text.partition("%")[0]))
    listing = [network for network in networks if address in network]
    if networks and not listing:
        return "outside of the networks"
    for block, kind in _SPECIAL:
        if address in block:
            # The networks that list the address are of its version, and so is the block.
            listed = any(_lies_within(network, block) for network in listing)
            return None if listed else kind
    return None


def holds_other_addresses(network: Network) -> bool:
    """Whether an address in ``network`` is judged by the IPv4 address within it."""
    return any(network.version == 6 and _lies_within(network, one) for one in _IPV4_INSIDE)


def _innermost(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address


def _lies_within(network: Network, block: Network) -> bool:
    if isinstance(network, IPv4Network):
        return network.subnet_of(cast("IPv4Network", block))
    return network.subnet_of(cast("IPv6Network", block))
