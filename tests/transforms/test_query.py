"""Query parameters set, appended and removed; all others byte for byte."""

import pytest

from fastapi_proxy_di.transforms.query import append_parameter, remove_parameter, set_parameter


@pytest.mark.parametrize(
    ("query", "name", "left"),
    [
        (b"", "a", b""),
        (b"a=1", "a", b""),
        (b"a", "a", b""),
        (b"b=%20&a=1&&c=+", "a", b"b=%20&&c=+"),
        (b"a=1&b=2&a=3", "a", b"b=2"),
        (b"%61=1&b", "a", b"b"),
        (b"a+b=1&a%20b=2&ab=3", "a b", b"ab=3"),
        (b"%C3%A4=1&x", "\u00e4", b"x"),
        (b"A=1", "a", b"A=1"),
    ],
)
def test_remove_parameter_keeps_all_others(query: bytes, name: str, left: bytes) -> None:
    """A name matches in any encoding; other bytes stay."""
    assert remove_parameter(query, name) == left


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", b"a%26=1%20%2F%C3%A4"),
        (b"x=%2f", b"x=%2f&a%26=1%20%2F%C3%A4"),
        (b"a%26=old&x", b"x&a%26=1%20%2F%C3%A4"),
    ],
)
def test_set_parameter_replaces_all_of_its_name(query: bytes, expected: bytes) -> None:
    """Name and value are encoded, so they cannot become two parameters."""
    assert set_parameter(query, "a&", "1 /\u00e4") == expected


def test_append_parameter_keeps_others_of_its_name() -> None:
    """Repeats stay."""
    assert append_parameter(b"a=1", "a", "2") == b"a=1&a=2"
