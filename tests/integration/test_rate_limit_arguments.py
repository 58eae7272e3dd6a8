"""The arguments of ``rate_limit`` that are refused, and its key of the client's address."""

from __future__ import annotations

import pytest
from starlette.requests import HTTPConnection

from fastapi_proxy_di import client_address, rate_limit


def test_limit_needs_a_name_where_its_key_has_none() -> None:
    """Two lambdas would be one limit."""

    def local(connection: HTTPConnection) -> str | None:
        return None

    for key in (lambda _: None, local):
        with pytest.raises(ValueError, match="name: is required"):
            rate_limit("1/minute", key=key)
        rate_limit("1/minute", key=key, name="named")
    with pytest.raises(ValueError, match="name="):
        rate_limit("1/minute", name='a"b')
    with pytest.raises(ValueError, match="cost=11"):
        rate_limit("10/second", "100/minute", cost=11)
    with pytest.raises(ValueError, match="is no rate"):
        rate_limit("fast")


@pytest.mark.parametrize(
    ("client", "key"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8:0:1::7", 1), "20010db800000001"),
        (("2001:db8:0:1:ffff::8", 1), "20010db800000001"),
        (("::ffff:192.0.2.7", 1), "192.0.2.7"),
        (("fe80::1%eth0", 1), "fe80000000000000"),
        (("a:socket", 1), "a:socket"),
        (None, None),
    ],
)
def test_client_address_is_that_of_the_server(
    client: tuple[str, int] | None, key: str | None
) -> None:
    """IPv6 addresses of one network of 64 bits are one client."""
    scope = {"type": "http", "headers": [(b"x-forwarded-for", b"1.2.3.4")], "client": client}

    assert client_address(HTTPConnection(scope)) == key
