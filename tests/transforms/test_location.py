"""``Location`` headers rewritten through the mount."""

import pytest

from fastapi_proxy_di.transforms.location import is_below, through_the_mount


def _moved(
    value: bytes,
    *,
    mount: bytes = b"/billing",
    base_path: bytes = b"",
    authority: bytes = b"10.0.0.1:8080",
    host: bytes | None = None,
) -> bytes:
    return through_the_mount(
        value, mount=mount, authority=authority, base_path=base_path, host=host
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"http://10.0.0.1:8080/x?a=%2F#f", b"/billing/x?a=%2F#f"),
        (b"https://10.0.0.1:8080/x", b"/billing/x"),
        (b"HTTP://10.0.0.1:8080/x", b"/billing/x"),
        (b"//10.0.0.1:8080/x", b"/billing/x"),
        (b"http://10.0.0.1:8080", b"/billing"),
        (b"http://10.0.0.1:8080?a=1", b"/billing?a=1"),
        (b"/x", b"/billing/x"),
        (b"/", b"/billing/"),
        (b"/billingx", b"/billing/billingx"),
        (b"/x?u=/billing", b"/billing/x?u=/billing"),
    ],
)
def test_location_of_the_destination_leads_through_the_mount(value: bytes, expected: bytes) -> None:
    """Absolute URLs and paths of the destination become paths below the mount."""
    assert _moved(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"https://elsewhere.test/x",
        b"http://10.0.0.1:8081/x",
        b"//elsewhere.test/x",
        b"x/y",
        b"../x",
        b"?a=1",
        b"",
        b"mailto:a@b.test",
        b"/billing",
        b"/billing/x",
        b"/billing?x",
    ],
)
def test_other_locations_stay(value: bytes) -> None:
    """Other hosts, relative references, and paths below the mount."""
    assert _moved(value) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"/base/x", b"/billing/x"),
        (b"/base", b"/billing"),
        (b"http://10.0.0.1:8080/base/?a", b"/billing/?a"),
        (b"/basement", b"/basement"),
        (b"http://10.0.0.1:8080/other", b"http://10.0.0.1:8080/other"),
        (b"http://10.0.0.1:8080", b"http://10.0.0.1:8080"),
    ],
)
def test_location_outside_the_base_path_stays(value: bytes, expected: bytes) -> None:
    """The gateway does not serve what lies outside the base path."""
    assert _moved(value, base_path=b"/base") == expected


@pytest.mark.parametrize("named", [b"api.test", b"api.test:80", b"API.test:443", b"api.test:"])
@pytest.mark.parametrize("authority", [b"api.test", b"api.test:443"])
def test_location_with_a_default_port_is_the_same_host(named: bytes, authority: bytes) -> None:
    """With and without the port."""
    assert _moved(b"http://" + named + b"/x", authority=authority) == b"/billing/x"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"http://gateway.test/x", b"/billing/x"),
        (b"http://gateway.test/billing/x", b"http://gateway.test/billing/x"),
        (b"http://10.0.0.1:8080/x", b"/billing/x"),
        (b"http://elsewhere.test/x", b"http://elsewhere.test/x"),
    ],
)
def test_location_with_the_host_that_was_sent(value: bytes, expected: bytes) -> None:
    """With ``preserve_host`` the upstream names itself by the client's ``Host``."""
    assert _moved(value, host=b"gateway.test") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"http://10.0.0.1:8080//evil.test/x", b"/.//evil.test/x"),
        (b"http://10.0.0.1:8080/\\evil.test/x", b"/./\\evil.test/x"),
        (b"http://10.0.0.1:8080?a", b"/?a"),
        (b"http://10.0.0.1:8080", b"/"),
        (b"/x", b"/x"),
    ],
)
def test_location_at_the_root_never_names_another_host(value: bytes, expected: bytes) -> None:
    """Two slashes at the start would be read as a host."""
    assert _moved(value, mount=b"") == expected


def test_location_at_the_root_becomes_a_path() -> None:
    """An absolute URL with the ``Host`` that was sent, without a mount."""
    assert _moved(b"http://gateway.test/x", mount=b"", host=b"gateway.test") == b"/x"


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
