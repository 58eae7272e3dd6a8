"""Each rule of ``location``, as a table over what a URL may lead to."""

from typing import Any

import pytest

from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import DestinationSettings
from fastapi_proxy_di.transforms.location import Places, is_below, rewritten


def _destination(url: str) -> Destination:
    return Destination(DestinationSettings(url=url))


def _rewritten(
    value: bytes,
    *,
    name: bytes = b"location",
    destination: str = "http://10.0.0.1:8080",
    pool: tuple[str, ...] = (),
    mount: bytes = b"/billing",
    hosts: tuple[bytes, ...] = (b"gateway.test",),
    **rest: Any,
) -> bytes:
    others = tuple(map(_destination, pool))
    places = Places(mount, _destination(destination), others, hosts, **rest)
    return rewritten(name, value, places)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"http://10.0.0.1:8080/x?a=%2F#f", b"/billing/x?a=%2F#f"),
        (b"HTTP://10.0.0.1:8080/x", b"/billing/x"),
        (b"//10.0.0.1:8080/x", b"/billing/x"),
        (b"http://user:secret@10.0.0.1:8080/x", b"/billing/x"),
        (b"http://10.0.0.2:8080/x", b"/billing/x"),
        (b"http://10.0.0.1:8080", b"/billing/"),
        (b"http://10.0.0.1:8080?a=1", b"/billing/?a=1"),
        (b"http://10.0.0.1:8080/billingx", b"/billing/billingx"),
    ],
)
def test_url_of_a_destination_becomes_a_path_below_the_mount(value: bytes, expected: bytes) -> None:
    """Of any destination of the pool, by its origin."""
    assert _rewritten(value, pool=("http://10.0.0.2:8080",)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"/x", b"/billing/x"),
        (b"/", b"/billing/"),
        (b"/billingx", b"/billing/billingx"),
        (b"/x?u=/billing", b"/billing/x?u=/billing"),
        (b"/\\evil.test/x", b"/billing/\\evil.test/x"),
    ],
)
def test_path_from_the_root_becomes_a_path_below_the_mount(value: bytes, expected: bytes) -> None:
    """The client would resolve it at the gateway's root."""
    assert _rewritten(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"/billing", b"/billing"),
        (b"/billing/x", b"/billing/x"),
        (b"/billing?x", b"/billing?x"),
        (b"http://gateway.test/billing/x", b"http://gateway.test/billing/x"),
        (b"https://gateway.test/billing/x", b"https://gateway.test/billing/x"),
        (b"http://10.0.0.1:8080/billing/x", b"/billing/x"),
    ],
)
def test_path_with_the_mount_stays(value: bytes, expected: bytes) -> None:
    """The upstream has heeded ``X-Forwarded-Prefix``, with its own host or the gateway's."""
    assert _rewritten(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"http://gateway.test/files/1", b"/billing/files/1"),
        (b"http://gateway.test", b"/billing/"),
        (b"//gateway.test/files/1", b"/billing/files/1"),
        (b"http://GATEWAY.test:80/files/1", b"/billing/files/1"),
        (b"http://front.test:8443/files/1", b"/billing/files/1"),
        (b"http://gateway.test:81/files/1", b"http://gateway.test:81/files/1"),
    ],
)
def test_own_origin_gets_the_mount(value: bytes, expected: bytes) -> None:
    """The upstream has heeded ``X-Forwarded-Host`` alone, or got the client's ``Host``."""
    assert _rewritten(value, hosts=(b"front.test:8443", b"gateway.test")) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"https://elsewhere.test/x",
        b"http://10.0.0.1:8081/x",
        b"http://10.0.0.1/x",
        b"//elsewhere.test/x",
        b"http://10.0.0.1:8080@elsewhere.test/x",
        b"foo",
        b"x/y",
        b"../x",
        b"./",
        b"?a=1",
        b"#f",
        b"",
        b"mailto:a@b.test",
        b"ftp://10.0.0.1:8080/x",
    ],
)
def test_anything_else_passes(value: bytes) -> None:
    """Other hosts and ports, and references that are relative to the request."""
    assert _rewritten(value) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"/base/x", b"/billing/x"),
        (b"/base", b"/billing"),
        (b"/base?a", b"/billing?a"),
        (b"/basement", b"/basement"),
        (b"/other", b"/other"),
        (b"/billing/x", b"/billing/x"),
        (b"http://10.0.0.1:8080/base/?a", b"/billing/?a"),
        (b"http://10.0.0.1:8080/other?a", b"/other?a"),
        (b"http://10.0.0.1:8080", b"/"),
        (b"http://10.0.0.1:8080//evil.test", b"/.//evil.test"),
        (b"http://gateway.test/base/x", b"/billing/x"),
        (b"http://gateway.test/other", b"http://gateway.test/other"),
    ],
)
def test_url_with_a_base_path(value: bytes, expected: bytes) -> None:
    """The base path becomes the mount; outside of it, only a destination's origin is removed."""
    assert _rewritten(value, destination="http://10.0.0.1:8080/base") == expected


@pytest.mark.parametrize(
    ("mount", "base_path", "value", "expected"),
    [
        (b"/app", "/app", b"/app/x", b"/app/x"),
        (b"/app", "/app/v1", b"/app/v1/x", b"/app/x"),
        (b"/app", "/app/v1", b"/app/v2/x", b"/app/v2/x"),
        (b"/app/v1", "/app", b"/app/v1/x", b"/app/v1/x"),
        (b"/app/v1", "/app", b"/app/x", b"/app/v1/x"),
        (b"", "/base", b"/base/x", b"/x"),
        (b"", "/base", b"/base", b"/"),
        (b"", "/base", b"/base?a", b"/?a"),
        (b"", "/base", b"/x", b"/x"),
    ],
)
def test_longer_one_of_mount_and_base_path_is_meant(
    mount: bytes, base_path: str, value: bytes, expected: bytes
) -> None:
    """If one of them lies below the other, a path may be below both."""
    destination = "http://10.0.0.1:8080" + base_path
    assert _rewritten(value, mount=mount, destination=destination) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"http://api.test/v1/x", b"/billing/x"),
        (b"http://api.test/v2/x", b"/billing/x"),
        (b"http://api.test/v3/x", b"/v3/x"),
        (b"/v2/x", b"/v2/x"),
    ],
)
def test_destinations_of_one_host_differ_in_base_path(value: bytes, expected: bytes) -> None:
    """A URL is below any of them, a path below that of the one that responded."""
    pool = ("http://api.test/v2",)
    assert _rewritten(value, destination="http://api.test/v1", pool=pool) == expected


@pytest.mark.parametrize(
    "named", [b"api.test", b"api.test:80", b"API.test:443", b"api.test:", b"api.test."]
)
@pytest.mark.parametrize("destination", ["http://api.test", "https://api.test"])
def test_default_port_is_the_same_host(named: bytes, destination: str) -> None:
    """With and without the port, in any case, with the final dot of a name."""
    assert _rewritten(b"http://" + named + b"/x", destination=destination) == b"/billing/x"


def test_host_that_was_sent_is_the_destination() -> None:
    """``override_host`` gives the destination another name."""
    value = b"http://tenant.test/base/x"
    destination = "http://10.0.0.1:8080/base"
    assert _rewritten(value, destination=destination) == value
    assert _rewritten(value, destination=destination, sent_host=b"tenant.test") == b"/billing/x"


@pytest.mark.parametrize(
    ("scheme", "destination", "value", "expected"),
    [
        ("http", "http://api.test", b"https://gateway.test/x", b"https://gateway.test/billing/x"),
        ("http", "http://api.test", b"https://api.test/x", b"https://gateway.test/billing/x"),
        ("http", "http://api.test", b"HTTPS://api.test", b"https://gateway.test/billing/"),
        ("https", "http://api.test", b"https://api.test/x", b"/billing/x"),
        ("https", "http://api.test", b"http://gateway.test/x", b"/billing/x"),
        ("http", "https://api.test", b"https://api.test/x", b"/billing/x"),
        ("http", "https://api.test", b"https://gateway.test/x", b"/billing/x"),
    ],
)
def test_redirect_from_http_to_https_keeps_its_scheme(
    scheme: str, destination: str, value: bytes, expected: bytes
) -> None:
    """As a path it would come back by http, in a loop (Django's ``SECURE_SSL_REDIRECT``)."""
    assert _rewritten(value, destination=destination, scheme=scheme) == expected


def test_redirect_to_https_without_a_host_becomes_a_path() -> None:
    """An HTTP/1.0 client need not say by which host it knows the gateway."""
    assert _rewritten(b"https://10.0.0.1:8080/x", hosts=()) == b"/billing/x"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"http://10.0.0.1:8080//evil.test/x", b"/.//evil.test/x"),
        (b"http://10.0.0.1:8080/\\evil.test/x", b"/./\\evil.test/x"),
        (b"http://10.0.0.1:8080?a", b"/?a"),
        (b"http://10.0.0.1:8080", b"/"),
        (b"http://gateway.test/x", b"http://gateway.test/x"),
        (b"/x", b"/x"),
        (b"//", b"//"),
    ],
)
def test_url_at_the_root_never_becomes_another_host(value: bytes, expected: bytes) -> None:
    """Two slashes at the start would be read as a host."""
    assert _rewritten(value, mount=b"") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"0; url=/x", b"0; url=/billing/x"),
        (b"0;URL = '/x'; b", b"0;URL = '/billing/x'; b"),
        (b'5 , url="http://10.0.0.1:8080/x"', b'5 , url="/billing/x"'),
        (b"1.5;url='/x", b"1.5;url='/billing/x"),
        (b"0;/x", b"0;/billing/x"),
        (b"0 /x", b"0 /billing/x"),
        (b"0; url=/billing/x", b"0; url=/billing/x"),
        (b"0; url=https://elsewhere.test/x", b"0; url=https://elsewhere.test/x"),
        (b"0; url=x.html", b"0; url=x.html"),
        (b"0;url", b"0;url"),
        (b"5;", b"5;"),
        (b"5", b"5"),
        (b"url=/x", b"url=/x"),
    ],
)
def test_refresh(value: bytes, expected: bytes) -> None:
    """As browsers read it (HTML, shared declarative refresh steps): with or without quotes."""
    assert _rewritten(value, name=b"refresh") == expected


def test_content_location() -> None:
    """By the rules of ``Location``."""
    assert _rewritten(b"/x", name=b"content-location") == b"/billing/x"


@pytest.mark.parametrize(
    ("path", "prefix", "below"),
    [
        (b"/a", b"/a", True),
        (b"/a/b", b"/a", True),
        (b"/ab", b"/a", False),
        (b"/b", b"/a", False),
        (b"/b", b"", True),
    ],
)
def test_is_below_counts_whole_segments(path: bytes, prefix: bytes, below: bool) -> None:
    """``/ab`` is not below ``/a``."""
    assert is_below(path, prefix) is below
