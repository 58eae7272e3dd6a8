"""Domain and Path of ``Set-Cookie``; all other bytes stay."""

import pytest

from fastapi_proxy_di.transforms.cookies import rewrite_domain, rewrite_path

COOKIE = b'a="1=2 ,/"; Expires=Wed, 21 Oct 2026 07:28:00 GMT;  domain = .API.test ;HttpOnly;Path=/x'


@pytest.mark.parametrize(
    ("match", "replacement", "expected"),
    [
        (None, None, COOKIE.replace(b";  domain = .API.test ", b"")),
        (b"api.test", None, COOKIE.replace(b";  domain = .API.test ", b"")),
        (b"api.test", b"gate.test", COOKIE.replace(b" .API.test ", b"gate.test")),
        (None, b".API.test", COOKIE),
        (b"other.test", b"gate.test", COOKIE),
        (b"other.test", None, COOKIE),
    ],
)
def test_domain_is_changed_in_place(
    match: bytes | None, replacement: bytes | None, expected: bytes
) -> None:
    """A leading dot and case are ignored (RFC 6265 section 5.2.3)."""
    assert rewrite_domain(COOKIE, match, replacement) == expected


@pytest.mark.parametrize("cookie", [b"domain=api.test; Path=/", b"a=1", b"a=1; Domain=", b""])
def test_cookie_without_a_domain_stays(cookie: bytes) -> None:
    """A cookie named domain is not the attribute."""
    assert rewrite_domain(cookie, None, None) == cookie


@pytest.mark.parametrize(
    ("path", "match", "replacement", "expected"),
    [
        (b"/", b"", b"/billing", b"/billing"),
        (b"/x", b"", b"/billing", b"/billing/x"),
        (b"/base", b"/base", b"/billing", b"/billing"),
        (b"/base/", b"/base", b"/billing", b"/billing"),
        (b"/base/x/", b"/base", b"/billing", b"/billing/x/"),
        (b"/basement", b"/base", b"/billing", b"/basement"),
        (b"/base/x", b"/base", b"", b"/x"),
        (b"/base/", b"/base", b"", b"/"),
        (b"/base", b"/base", b"", b"/"),
        (b"x", b"", b"/billing", b"x"),
    ],
)
def test_path_prefix_is_replaced_at_whole_segments(
    path: bytes, match: bytes, replacement: bytes, expected: bytes
) -> None:
    """``/`` becomes the mount without a slash at its end, which covers ``/billing``, too."""
    assert (
        rewrite_path(b"a=1; Path=" + path + b"; Secure", match, replacement)
        == b"a=1; Path=" + expected + b"; Secure"
    )


@pytest.mark.parametrize(
    ("path", "match", "replacement", "expected"),
    [
        (b"/shop", b"", b"/shop", b"/shop"),
        (b"/shop/", b"", b"/shop", b"/shop/"),
        (b"/shop/cart", b"", b"/shop", b"/shop/cart"),
        (b"/shopping", b"", b"/shop", b"/shop/shopping"),
        (b"/a/b/c", b"/a", b"/a/b", b"/a/b/c"),
        (b"/a/b/c", b"/a/b", b"/a", b"/a/c"),
        (b"/shop/cart", b"/shop", b"/shop", b"/shop/cart"),
    ],
)
def test_path_that_has_the_new_prefix_stays(
    path: bytes, match: bytes, replacement: bytes, expected: bytes
) -> None:
    """An upstream that knows its mount writes it into its cookies, as into ``Location``."""
    assert rewrite_path(b"a=1; Path=" + path, match, replacement) == b"a=1; Path=" + expected


def test_every_path_of_a_cookie_is_replaced() -> None:
    """Browsers use the last one."""
    assert rewrite_path(b"a=1;path=/;PATH=/x", b"", b"/b") == b"a=1;path=/b;PATH=/b/x"


@pytest.mark.parametrize("cookie", [b"__Host-id=1; Path=/; Secure", b" __host-id=1; Path=/"])
def test_host_cookie_keeps_its_path(cookie: bytes) -> None:
    """Browsers refuse a ``__Host-`` cookie with another path."""
    assert rewrite_path(cookie, b"", b"/billing") == cookie
