"""Addresses of sources: what they are read as, and how wrong ones are refused."""

from __future__ import annotations

import re

import pytest

from fastapi_proxy_di.wire.source_address import parse_source, prefix_of_source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            " dns+http://API.internal:8080/base/ ",
            ("dns+http://api.internal:8080/base", "dns", "http", "api.internal", 8080, "/base"),
        ),
        (
            "DNS+https://api.internal.",
            ("dns+https://api.internal.", "dns", "https", "api.internal.", 443, ""),
        ),
        (
            "srv+http://_api._tcp.internal",
            ("srv+http://_api._tcp.internal", "srv", "http", "_api._tcp.internal", 80, ""),
        ),
        (
            "file:///etc/a%20b.TOML",
            ("file:///etc/a%20b.TOML", "file", "http", "", None, "/etc/a b.TOML"),
        ),
        (
            "file://localhost/etc/billing.yaml",
            ("file:///etc/billing.yaml", "file", "http", "", None, "/etc/billing.yaml"),
        ),
        ("consul:///billing", ("consul:///billing", "consul", "http", "", None, "/billing")),
        (
            "consul+https://Consul.internal:8501/billing",
            (
                "consul+https://Consul.internal:8501/billing",
                "consul",
                "https",
                "consul.internal",
                8501,
                "/billing",
            ),
        ),
        ("consul://[fd00::1]", ("consul://[fd00::1]", "consul", "http", "fd00::1", None, "")),
    ],
)
def test_source_is_parsed(text: str, expected: tuple[object, ...]) -> None:
    """The scheme is in lower case, and addresses of names are normalised."""
    address = parse_source(text)

    assert (address.url, *address[2:-1]) == expected
    assert (address.shown, address.query) == (address.url, "")


def test_query_of_a_source_is_read_and_not_shown() -> None:
    """A plug-in gets it; it may be a secret."""
    address = parse_source("consul://a:1/billing?token=s3cret")

    assert address.query == "token=s3cret"
    assert address.shown == "consul://a:1/billing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dns://api.internal", "write dns+http or dns+https"),
        ("dns+ftp://api.internal", "the scheme 'ftp'; write dns+http"),
        ("dns+http://10.0.0.1:80", "no name to look up; write http://host:port"),
        ("dns+http://[::1]", "no name to look up"),
        ("dns+http://a_b!.internal", "'dns+http://a_b!.internal' has a bad host name"),
        ("dns+http://api.internal:0", "'dns+http://api.internal:0' has a bad port"),
        ("dns+http://api.internal?x=1", "has a query"),
        ("dns+http://api.internal/a b", "a space"),
        ("srv+http://_api._tcp.internal:80", "SRV records give the ports"),
        ("file://etc/billing.toml", "names no file; write file:///etc/billing.toml"),
        ("file:billing.toml", "write file:///etc/billing.toml"),
        ("file+http:///etc/billing.toml", "names no file"),
        ("file:///etc/billing.ini", "must end with one of .toml, .yaml, .yml, .json"),
        ("file:///etc/billing.toml?x=1", "has a query"),
        ("consul://me:s3cret@a", "'consul://***@a' holds credentials"),
        ("consul://a:b", "bad host or port"),
        ("consul://a#b", "a fragment"),
    ],
)
def test_wrong_source_is_refused(text: str, message: str) -> None:
    """The text names the mend, and shows no credentials."""
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parse_source(text)

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://a", None),
        ("HTTPS://a", None),
        ("http+unix://%2Frun%2Fa", None),
        ("asgi://a:b", None),
        ("host:8080", None),
        ("a b://c", None),
        ("dns+http://a", "dns"),
        ("file:a", "file"),
        ("Consul://a", "consul"),
    ],
)
def test_prefix_tells_sources_from_destinations(text: str, expected: str | None) -> None:
    """What is no address with a known scheme of destinations is a source, or a fault."""
    assert prefix_of_source(text) == expected
