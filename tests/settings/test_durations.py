"""Durations as text and numbers."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from fastapi_proxy_di.settings import (
    Duration,
    DurationOrZero,
)
from fastapi_proxy_di.settings.durations import parse_duration


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (3, 3.0),
        (0.5, 0.5),
        ("15", 15.0),
        (" 1.5 s ", 1.5),
        (".5s", 0.5),
        ("500ms", 0.5),
        ("2m", 120.0),
        ("1H", 3600.0),
        ("2d", 172800.0),
        (timedelta(minutes=1), 60.0),
        (0, 0.0),
    ],
)
def test_parse_duration_reads_numbers_and_units(value: object, seconds: float) -> None:
    """Without a unit it is seconds."""
    assert seconds == parse_duration(value)


@pytest.mark.parametrize(
    "value",
    ["", "abc", "5x", "-1", "1m30", "1e3", "٣s", None, True, [], -1, math.inf, math.nan, "400d"],
)
def test_parse_duration_refuses_anything_else(value: object) -> None:
    """Not finite, negative, or longer than a year."""
    with pytest.raises(ValueError, match="500ms"):
        parse_duration(value)


@given(st.floats(0.001, 1e5), st.sampled_from([("ms", 0.001), ("s", 1.0), ("m", 60.0)]))
def test_parse_duration_scales_by_its_unit(number: float, unit: tuple[str, float]) -> None:
    """Any decimal number, times its unit."""
    name, factor = unit
    text = f"{number:.4f}"

    assert parse_duration(text + name) == pytest.approx(float(text) * factor)


def test_duration_refuses_zero_and_duration_or_zero_takes_it() -> None:
    """An interval of 0 makes no sense, a queue timeout of 0 does."""

    class Both(BaseModel):
        positive: Duration = Field(default=1.0, validate_default=True)
        any_: DurationOrZero = Field(default=1.0, validate_default=True)

    assert Both.model_validate({"any_": "0"}).any_ == 0
    with pytest.raises(ValidationError, match="more than 0"):
        Both.model_validate({"positive": "0ms"})
