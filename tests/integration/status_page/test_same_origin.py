"""Which actions come from the status page itself."""

import pytest

from fastapi_proxy_di.integration.status_page.same_origin import is_same_origin, normal_origin

ALLOWED = frozenset({normal_origin("https://ops.example")})


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, True),  # a program, which has no cookies of somebody else
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "http://gateway.test"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "https://ops.example"}, True),
        ({"origin": "https://ops.example:443"}, True),
        ({"origin": "https://ops.example:444"}, False),
        ({"origin": "http://gateway.test"}, True),
        ({"origin": "http://gateway.test:80"}, True),
        ({"origin": "http://GATEWAY.test"}, True),
        ({"origin": "http://gateway.test:8080"}, False),
        ({"origin": "https://gateway.test"}, True),  # TLS ends in front of the app
        ({"origin": "http://gateway.test.evil.example"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "http://gateway.test:x"}, False),
        ({"origin": "http://gateway.test/path"}, False),
        ({"origin": "http://[gateway.test"}, False),
    ],
)
def test_origin_of_an_action(headers: dict[str, str], expected: bool) -> None:
    """Fetch Metadata decides where it is sent, else Origin against Host."""
    assert is_same_origin({"host": "gateway.test", **headers}, ALLOWED) is expected


def test_no_host() -> None:
    """An origin equals no missing Host."""
    assert not is_same_origin({"origin": "http://gateway.test"}, ALLOWED)
    assert not is_same_origin({"origin": "null"}, ALLOWED)


@pytest.mark.parametrize(
    ("origin", "normal"),
    [
        ("https://ops.example", "https://ops.example:443"),
        ("http://OPS.example:81", "http://ops.example:81"),
        ("ops.example", ""),
        ("null", ""),
        ("https://user@ops.example", ""),
        ("https://ops.example/x", ""),
        ("ftp://ops.example", ""),
        ("http://[::1]:8000", "http://::1:8000"),
        ("http://[::1", ""),
    ],
)
def test_normal_origin(origin: str, normal: str) -> None:
    """With its port, or nothing."""
    assert normal_origin(origin) == normal
