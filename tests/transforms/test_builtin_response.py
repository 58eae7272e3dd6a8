"""Each response transform of the settings."""

from typing import Literal

import pytest

from fastapi_proxy_di.transforms import (
    CookieDomain,
    CookiePath,
    LocationRewrite,
    ResponseHeader,
    ResponseHeaderRemove,
    ResponseHeadersAllowed,
    Transform,
)
from tests.transforms.views import headers_after, response


@pytest.mark.parametrize(
    ("when", "statuses"),
    [("success", [101, 200, 399]), ("failure", [400, 599]), ("always", [101, 200, 399, 400, 599])],
)
def test_when_selects_responses_by_status(
    when: Literal["success", "failure", "always"], statuses: list[int]
) -> None:
    """Success is a status below 400, as in YARP."""
    transforms = (ResponseHeader(name="x-a", set="1", when=when),)
    changed = [s for s in (101, 200, 399, 400, 599) if headers_after(response(s), *transforms)]
    assert changed == statuses


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (ResponseHeader(name="X-A", set="9"), [(b"x-b", b"2"), (b"x-a", b"9")]),
        (
            ResponseHeader(name="x-a", append="9"),
            [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3"), (b"x-a", b"9")],
        ),
        (ResponseHeaderRemove(name="x-a"), [(b"x-b", b"2")]),
        (ResponseHeaderRemove(name="x-a", when="failure"), None),
        (ResponseHeadersAllowed(names=["x-b"]), [(b"x-b", b"2")]),
    ],
)
def test_header_transforms(
    transform: Transform, expected: list[tuple[bytes, bytes]] | None
) -> None:
    """Order and repeats of the other headers stay."""
    headers = [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")]
    assert headers_after(response(headers=headers), transform) == (expected or headers)


def test_headers_allowed_keeps_the_framing() -> None:
    """Without its framing headers the body would break."""
    headers = [(b"content-length", b"2"), (b"etag", b"x")]
    assert headers_after(response(headers=headers), ResponseHeadersAllowed(names=())) == headers[:1]


@pytest.mark.parametrize(
    ("transform", "location", "expected"),
    [
        (LocationRewrite(), b"http://api.test/base/x", b"/billing/x"),
        (LocationRewrite(), b"http://gateway.test/base/x", b"/billing/x"),
        (LocationRewrite(), b"/other", b"/other"),
        (LocationRewrite(match="/v2/", replace="/billing/"), b"/v2/x", b"/billing/x"),
        (LocationRewrite(match="/v2/", replace="/billing/"), b"/x/v2/", b"/x/v2/"),
        (LocationRewrite(match="http://api.test", replace=""), b"http://api.test/x", b"/x"),
    ],
)
def test_location_is_rewritten(transform: Transform, location: bytes, expected: bytes) -> None:
    """By the address of the destination, or by ``match`` and ``replace``."""
    given = response(302, [(b"location", location)], base_path=b"/base", host=b"gateway.test")
    assert headers_after(given, transform) == [(b"location", expected)]


def test_cookies_are_rewritten_one_by_one() -> None:
    """Repeated headers stay apart and in order; other bytes stay."""
    headers = [
        (b"set-cookie", b"a=1; Domain=api.test; Path=/base/x"),
        (b"x-a", b"a=1; Domain=api.test; Path=/base"),
        (b"set-cookie", b"b=2; Path=/"),
        (b"set-cookie", b"c=3"),
    ]
    given = response(headers=headers, base_path=b"/base")
    assert headers_after(given, CookieDomain(), CookiePath()) == [
        (b"set-cookie", b"a=1; Path=/billing/x"),
        headers[1],
        (b"set-cookie", b"b=2; Path=/"),
        (b"set-cookie", b"c=3"),
    ]


def test_cookies_are_rewritten_by_match_and_set() -> None:
    """The mount is not used then."""
    given = response(headers=[(b"set-cookie", b"a=1; Domain=.API.test; Path=/v2/x")])
    transforms = (
        CookieDomain(match=".api.test", set="gate.test"),
        CookiePath(match="/v2/", set="/v3/"),
    )
    assert headers_after(given, *transforms) == [
        (b"set-cookie", b"a=1; Domain=gate.test; Path=/v3/x")
    ]
