"""The syntax of Host."""

import pytest

from fastapi_proxy_di.wire.host import is_host


@pytest.mark.parametrize(
    "value",
    [
        b"a",
        b"api.example:8080",
        b"api.example.",
        b"api.example:",
        b"my_service:80",
        b"xn--bcher-kva.example",
        b"b%C3%BCcher.example",
        b"a!$&'()*+,;=~-b",
        b"127.0.0.1:1",
        b"[::1]",
        b"[fd00::1]:8080",
        b"[::ffff:1.2.3.4]:80",
        b"[v1.fe:80+a]",
    ],
)
def test_host_of_rfc_3986_is_valid(value: bytes) -> None:
    """Section 3.2.2: names with any of its characters, IPv4, IPv6 and later versions."""
    assert is_host(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b":80",
        b"a b",
        b"a/b",
        b"a?b",
        b"a#b",
        b"user@a",
        b"a:80:90",
        b"a:http",
        b"a:-1",
        b"a, b:c",
        b"a%2",
        b"a%zz",
        b"a\\b",
        b'a"b',
        b"a<b>",
        b"caf\xe9",
        b"a\n",
        b"[::1",
        b"::1",
        b"[1.2.3.4]",
        b"[:::1]",
        b"[fe80::1%25eth0]",
        b"[v1.]",
    ],
)
def test_anything_else_is_no_host(value: bytes) -> None:
    """Neither is an empty host (RFC 9110 section 4.2.1)."""
    assert not is_host(value)
