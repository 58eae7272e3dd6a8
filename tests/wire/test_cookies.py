"""Cookies of a request: read by name, removed by name."""

from fastapi_proxy_di.wire.cookies import cookie_values, joined_cookies, without_cookie


def test_cookie_values_gives_all_of_a_name() -> None:
    """Values are in the order of the headers and stripped; whole names are compared."""
    headers = [
        (b"cookie", b'odd={"a": 1}; sid=x=1;  sid = 2 ;xsid=3; Sid=4; sid'),
        (b"x-cookie", b"sid=5"),
        (b"cookie", b"sid=6"),
    ]

    assert list(cookie_values(headers, b"sid")) == [b"x=1", b"2", b"", b"6"]
    assert list(cookie_values(headers, b"other")) == []


def test_without_cookie_keeps_all_other_bytes() -> None:
    """A header without another cookie is removed."""
    headers = [
        (b"cookie", b"a=1; stay=x.y;b=2"),
        (b"cookie", b"stay=x.y"),
        (b"cookie", b"c=stay"),
        (b"x", b"stay=1"),
    ]

    assert without_cookie(headers, b"stay") == [
        (b"cookie", b"a=1;b=2"),
        (b"cookie", b"c=stay"),
        (b"x", b"stay=1"),
    ]


def test_joined_cookies_is_one_header_at_the_place_of_the_first() -> None:
    """RFC 9113 section 8.2.3: crumbs are joined by a semicolon and a space."""
    headers = [(b"x", b"1"), (b"cookie", b"a=1"), (b"y", b"2"), (b"cookie", b"b=2; c=3")]

    joined = [(b"x", b"1"), (b"cookie", b"a=1; b=2; c=3"), (b"y", b"2")]
    assert joined_cookies(headers) == joined
    assert joined_cookies(joined) == joined
    assert joined_cookies([(b"x", b"1")]) == [(b"x", b"1")]
