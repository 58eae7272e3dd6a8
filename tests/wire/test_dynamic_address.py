"""Addresses that code gives for one request: what is read, and what is allowed."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from fastapi_proxy_di.wire.dynamic_address import (
    Origin,
    allowed_address,
    dynamic_address,
    literal_of,
    parse_origin,
)
from tests.support.dynamic_addresses import ALLOWED, NETWORKS, ORIGINS, REFUSED

LISTED = tuple(map(parse_origin, ORIGINS))
INSIDE = tuple(map(ip_network, NETWORKS))


@pytest.mark.parametrize("text", REFUSED)
def test_address_is_refused(text: str) -> None:
    """Whatever it is written like."""
    with pytest.raises(ValueError, match=r".") as raised:
        allowed_address(text, LISTED, INSIDE)

    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(("text", "url"), ALLOWED)
def test_address_is_allowed_and_normalised(text: str, url: str) -> None:
    """By an origin or a network."""
    assert allowed_address(text, LISTED, INSIDE).url == url


def test_literal_address_needs_an_origin_where_there_are_no_networks() -> None:
    """An empty list of networks allows none."""
    with pytest.raises(ValueError, match="none of the allowed origins"):
        allowed_address("http://10.1.2.3", LISTED, ())

    assert allowed_address("http://[fd00::1]:8080", LISTED, ()).host == "fd00::1"


def test_literal_address_of_an_origin_lies_in_the_networks_too() -> None:
    """Both lists are rules for every address."""
    with pytest.raises(ValueError, match="outside of the networks"):
        allowed_address("http://[fd00::1]:8080", LISTED, INSIDE[:1])


def test_nothing_is_allowed_without_lists() -> None:
    """Neither a name nor a literal address."""
    for text in ("http://alice.notebooks.test:8888", "http://10.0.0.1"):
        with pytest.raises(ValueError, match="none of the allowed origins"):
            allowed_address(text, (), ())


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://*.notebooks.svc:8888", Origin("http", "notebooks.svc", True, 8888)),
        ("HTTPS://*.Notebooks.svc.", Origin("https", "notebooks.svc", True, 443)),
        ("http://name:*", Origin("http", "name", False, None)),
        ("http://*.Bücher.test:*", Origin("http", "xn--bcher-kva.test", True, None)),
        (" http://[FD00::1]:* ", Origin("http", "fd00::1", False, None)),
        ("http://10.0.0.1", Origin("http", "10.0.0.1", False, 80)),
    ],
)
def test_origin_is_read(text: str, origin: Origin) -> None:
    """Lower case, IDNA, no final dot, the scheme's own port."""
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://*", "neither the whole leftmost label nor the port"),
        ("http://*:80", "neither the whole leftmost label nor the port"),
        ("http://n*.svc", "neither the whole leftmost label nor the port"),
        ("http://*.*.svc", "neither the whole leftmost label nor the port"),
        ("http://a.*.svc", "neither the whole leftmost label nor the port"),
        ("*://name", "has no scheme"),
        ("http://*.", "no name after"),
        ("http://*.:80", "no name after"),
        ("http://*.0.0.1", "bad IPv4 address"),
        ("http://*.0x7f", "bad IPv4 address"),
        ("http://name/base", "has a path"),
        ("http://name/", "has a path"),
        ("http://user:secret@name", "credentials"),
        ("asgi://app:app", "another scheme"),
        ("name", "has no scheme"),
        ("", "is empty"),
        ("http://[fe80::1%25eth0]", "not a plain name or IP address"),
    ],
)
def test_origin_is_refused(text: str, message: str) -> None:
    """The message says what is wrong, and shows no credentials."""
    with pytest.raises(ValueError, match=message) as raised:
        parse_origin(text)

    assert "secret" not in str(raised.value)


def test_literal_of_a_name_is_none() -> None:
    """A name is looked up at the dial."""
    assert literal_of(dynamic_address("http://name")) is None
    assert str(literal_of(dynamic_address("http://[::1]"))) == "::1"
