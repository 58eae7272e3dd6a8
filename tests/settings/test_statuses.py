"""Sets of status codes, as text and numbers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_proxy_di.settings import (
    HealthSettings,
    StatusCodes,
)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ("200-399", set(range(200, 400))),
        ("200,204, 300-302", {200, 204, 300, 301, 302}),
        ("", set()),
        (503, {503}),
        ([502, "503-504"], {502, 503, 504}),
        ((), set()),
    ],
)
def test_status_codes_reads_codes_and_ranges(codes: Any, expected: set[int]) -> None:
    """As text from a variable, as numbers from JSON and code."""
    assert expected == StatusCodes(codes)


@pytest.mark.parametrize("codes", ["abc", "99", "600", "300-200", "2xx", [20], None, 1.5, "200-"])
def test_status_codes_refuses_anything_else(codes: Any) -> None:
    """The message shows the form."""
    with pytest.raises(ValueError, match="200-399"):
        StatusCodes(codes)


@given(st.frozensets(st.integers(100, 599)))
def test_status_codes_reads_what_it_writes(codes: frozenset[int]) -> None:
    """The short text gives the same set."""
    written = StatusCodes(codes)

    assert codes == StatusCodes(str(written))
    assert repr(written) == f"StatusCodes('{written}')"


def test_status_codes_are_dumped_as_text_in_json_only() -> None:
    """Python keeps the set, JSON gets the short text."""
    settings = HealthSettings(expected=StatusCodes("200,300-302"))

    assert StatusCodes([200, 300, 301, 302]) == settings.model_dump()["expected"]
    assert settings.model_dump(mode="json")["expected"] == "200,300-302"
