"""Text from outside, in a form that is safe to show."""

from __future__ import annotations

import pytest

from fastapi_proxy_di.wire.quoting import quoted, shown_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GET", "GET"),
        ("ümläut ✓", "ümläut ✓"),
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x00\x7f\x85", r"\x00\x7f\x85"),
        ("\u2028\u202e\ufeff", r"\u2028\u202e\ufeff"),
        ("\udc80", r"\udc80"),
        ("", ""),
    ],
)
def test_everything_that_is_not_printable_is_escaped(text: str, expected: str) -> None:
    """Line ends, escape sequences, marks that reorder text, lone surrogates."""
    assert quoted(text) == expected
    assert quoted(text).isprintable()


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"raw_path": b"/a%0d%0ab", "path": "/a\r\nb"}, "/a%0d%0ab"),
        ({"raw_path": b"/a;b=1/{c}|d", "path": "/a;b=1/{c}|d"}, "/a;b=1/{c}|d"),
        ({"raw_path": b"/a\x1b\xff", "path": "/a\x1b"}, "/a%1B%FF"),
        ({"raw_path": b"/a?secret=1", "path": "/a"}, "/a"),
        ({"path": "/a\r\n%ü"}, "/a%0D%0A%25%C3%BC"),
        ({"raw_path": None, "path": "/a b"}, "/a%20b"),
    ],
)
def test_path_is_shown_as_it_travelled(scope: dict[str, object], expected: str) -> None:
    """Percent-encoded, whether the server gives the raw path or not."""
    assert shown_path(scope) == expected


@pytest.mark.parametrize("one", ["x", "\x1b", "\u202e", "\\"])
def test_long_text_is_cut(one: str) -> None:
    """A long text would fill a log; quoting a quoted text changes nothing."""
    text = quoted(one * 10_000)

    assert len(text) == 500
    assert text.endswith("...")
    assert quoted(text) == text


@pytest.mark.parametrize("scope", [{"raw_path": b"/\xff" * 9_000}, {"path": "/\u202e" * 9_000}])
def test_long_path_is_cut(scope: dict[str, object]) -> None:
    """At 2000 characters of what is shown."""
    assert len(shown_path(scope)) == 2000
    assert shown_path(scope).endswith("...")


def test_text_as_long_as_allowed_is_whole() -> None:
    """Nothing is cut that fits."""
    assert quoted("x" * 500) == "x" * 500
    assert shown_path({"path": "/" * 2000}) == "/" * 2000
