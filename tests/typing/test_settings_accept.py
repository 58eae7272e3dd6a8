"""What settings accept, type checkers accept, and they know what it is read as.

mypy and pyright check this file; pytest runs it. pyright also says when a call that it must
refuse passes: its ``type: ignore`` is then unnecessary.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from datetime import timedelta
from typing import Any, Final, assert_type

import pytest
from pydantic import BaseModel, ValidationError

from fastapi_proxy_di import (
    AffinitySettings,
    Destinations,
    EjectionSettings,
    HealthSettings,
    LimitSettings,
    RetrySettings,
    TimeoutSettings,
    UpstreamSettings,
    WebSocketSettings,
)
from fastapi_proxy_di.settings.statuses import StatusCodes

SECOND: Final = timedelta(seconds=1)


class Billing(UpstreamSettings, name="billing"):
    """An upstream whose class declares nothing but addresses."""

    destinations: Destinations = ["http://10.0.0.1"]


class InText(UpstreamSettings, name="in-text"):
    """An upstream that declares durations as text and as ``timedelta``."""

    destinations: Destinations = ["http://10.0.0.1"]
    slow_start: str = "30s"
    max_requests_window: timedelta = SECOND


class InSeconds(UpstreamSettings, name="in-seconds"):
    """An upstream that declares durations in seconds."""

    destinations: Destinations = ["http://10.0.0.1"]
    slow_start: float = 30
    max_requests_window: float | None = 1


DURATIONS: Final[list[BaseModel]] = [
    AffinitySettings(header="x-tenant"),
    AffinitySettings(cookie="billing", key="k" * 32, max_age="30d"),
    EjectionSettings(window="1m", base_time=SECOND, max_time=300),
    HealthSettings(interval="5s", timeout=SECOND, unhealthy_interval=0.5),
    LimitSettings(queue_timeout="500ms", idle_seconds=4, expect_continue=SECOND),
    RetrySettings(backoff="25ms", duration="5s", hedge_after=SECOND),
    TimeoutSettings(
        connect="5s", resolve=SECOND, activity=100, first_byte="none", ping=None, total="2m"
    ),
    WebSocketSettings(ping_interval="20s", ping_timeout=None, open_timeout=SECOND),
    Billing(slow_start="30s", max_requests_window=SECOND),
]


def durations(model: type[BaseModel]) -> set[str]:
    """Find the fields that accept a text such as ``5s``."""
    properties = model.model_json_schema(mode="validation")["properties"]
    return {
        name
        for name, schema in properties.items()
        if "ms|s|m|h|d" in str({**schema, "description": ""})
    }


@pytest.mark.parametrize("model", {type(settings) for settings in DURATIONS}, ids=str)
def test_durations_are_all_in_the_table(model: type[BaseModel]) -> None:
    """Each duration of each model is set above, in a form that type checkers have seen."""
    written = (one.model_fields_set for one in DURATIONS if type(one) is model)

    assert durations(model) <= set().union(*written)


def test_types_of_durations() -> None:
    """A duration is read as seconds, or as seconds or none."""
    assert_type(AffinitySettings(header="x-tenant").max_age, float | None)
    assert_type(EjectionSettings().window, float)
    assert_type(HealthSettings().timeout, float)
    assert_type(HealthSettings().unhealthy_interval, float | None)
    assert_type(LimitSettings().idle_seconds, float)
    assert_type(RetrySettings().backoff, float)
    assert_type(RetrySettings().hedge_after, float | None)
    assert_type(WebSocketSettings().ping_timeout, float | None)
    timeouts = TimeoutSettings(connect="5s", total="2m")
    assert_type(timeouts.connect, float)
    assert_type(timeouts.total, float | None)
    assert (timeouts.connect, timeouts.total) == (5.0, 120.0)


def test_types_of_durations_in_a_declared_class() -> None:
    """A class may write a duration as number, text or ``timedelta``; each is seconds then."""
    in_seconds = InSeconds()
    undeclared: float = Billing().slow_start

    assert_type(in_seconds.slow_start, float)
    assert (in_seconds.slow_start, in_seconds.max_requests_window) == (30.0, 1.0)
    assert InText().model_dump(include={"slow_start", "max_requests_window"}) == {
        "slow_start": 30.0,
        "max_requests_window": 1.0,
    }
    assert undeclared == 0.0


def test_types_of_statuses() -> None:
    """Statuses of a good probe are accepted as text, number or list."""
    assert_type(HealthSettings(expected=[200, "300-302"]).expected, StatusCodes)
    assert HealthSettings(expected=204).expected == {204}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: TimeoutSettings(connect=[5]),  # type: ignore[arg-type, unused-ignore]
        lambda: TimeoutSettings(connect=None),  # type: ignore[arg-type, unused-ignore]
        lambda: HealthSettings(expected=None),  # type: ignore[arg-type, unused-ignore]
        lambda: RetrySettings(hedge_after={}),  # type: ignore[arg-type, unused-ignore]
    ],
)
def test_types_refuse_what_validation_refuses(wrong: Any) -> None:
    """A value of a wrong type is a fault for validation and for type checkers."""
    with pytest.raises(ValidationError):
        wrong()
