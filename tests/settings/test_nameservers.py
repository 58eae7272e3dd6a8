"""The addresses of DNS servers in the settings."""

from __future__ import annotations

import pytest

from fastapi_proxy_di.settings.nameservers import parse_nameserver


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.53", ("10.0.0.53", 53)),
        (" 10.0.0.53:5353 ", ("10.0.0.53", 5353)),
        ("fd00::53", ("fd00::53", 53)),
        ("[fd00::53]", ("fd00::53", 53)),
        ("[::1]:5353", ("::1", 5353)),
        ("fe80::1%eth0", ("fe80::1%eth0", 53)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
    ],
)
def test_nameserver_is_an_address_with_or_without_a_port(
    text: str, expected: tuple[str, int]
) -> None:
    """Port 53 is the default; IPv6 with a port is in brackets."""
    assert parse_nameserver(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "dns.internal", "10.0.0.53:", "10.0.0.53:0", "10.0.0.53:65536", "[10.0.0.53]:53"),
        *(
            "::1:",
            "[::1",
            "udp://10.0.0.53",
            "10.0.0.53 10.0.0.54",
            "10.0.0.53:\N{ARABIC-INDIC DIGIT THREE}",
        ),
    ],
)
def test_nameserver_that_is_not_valid_is_refused(text: str) -> None:
    """The text says how to write it. A name would need a server to look it up."""
    with pytest.raises(ValueError, match=r"write 10\.0\.0\.53, 10\.0\.0\.53:5353"):
        parse_nameserver(text)
