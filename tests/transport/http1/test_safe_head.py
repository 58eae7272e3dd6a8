"""``is_safe_head``: no line end or NUL is sent within a part of a request's head."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_proxy_di.transport.http1.transport import is_safe_head


@given(st.lists(st.binary(max_size=10), min_size=1, max_size=5))
def test_block_is_safe_exactly_when_no_part_holds_a_line_end(parts: list[bytes]) -> None:
    """CR, LF and NUL are forbidden within a part."""
    safe = not any(byte in b"\r\n\0" for part in parts for byte in part)

    assert is_safe_head(b"\r\n".join(parts), len(parts) - 1) == safe


@pytest.mark.parametrize(
    ("block", "lines"),
    [
        (b"a\n\r", 1),
        (b"a\r\r\n\n", 2),
        (b"a\n\rb\r\n", 2),
        (b"a\0\r", 1),
        (b"a\r\nb", 0),
        (b"a", 1),
    ],
)
def test_block_with_other_line_ends_is_not_safe(block: bytes, lines: int) -> None:
    """The right number of line end bytes in the wrong order is unsafe too."""
    assert not is_safe_head(block, lines)
