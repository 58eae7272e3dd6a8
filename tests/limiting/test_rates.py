"""Rates are read from text."""

from __future__ import annotations

import pytest

from fastapi_proxy_di.limiting.rates import read_rate, read_rates


@pytest.mark.parametrize(
    ("text", "limit", "seconds", "shown"),
    [
        ("100/minute", 100, 60, "100/minute"),
        (" 10 / seconds ", 10, 1, "10/second"),
        ("1000/hour", 1000, 3600, "1000/hour"),
        ("5/1 day", 5, 86400, "5/day"),
        ("100/15 minutes", 100, 900, "100/15 minutes"),
        ("100/15minute", 100, 900, "100/15 minutes"),
    ],
)
def test_rate_has_a_limit_and_a_window(text: str, limit: int, seconds: int, shown: str) -> None:
    """Units are seconds, minutes, hours and days, one or several."""
    rate = read_rate(text)

    assert (rate.limit, rate.seconds, rate.text) == (limit, seconds, shown)


@pytest.mark.parametrize(
    "text",
    [
        *("", "100", "minute", "100 per minute", "-1/minute", "1.5/minute", "0/minute"),
        *("1/0 minutes", "1/month", "1/367 days", f"{10**9 + 1}/day", "\u0661/minute"),
        "1/minute\n2/hour",
    ],
)
def test_rate_that_is_none_is_refused(text: str) -> None:
    """The fault quotes the text."""
    with pytest.raises(ValueError, match="'"):
        read_rate(text)


def test_rates_have_different_windows() -> None:
    """The lower one of two with the same window would be the only one in force."""
    assert [rate.limit for rate in read_rates(["10/second", "1000/hour"])] == [10, 1000]
    with pytest.raises(ValueError, match="10/minute, 20/60 seconds: two rates"):
        read_rates(["10/minute", "20/60 seconds"])
    with pytest.raises(ValueError, match="there is no rate"):
        read_rates([])


def test_rate_of_a_process_is_its_share_and_at_least_one() -> None:
    """A limit is never zero, whatever the number of processes, and never none."""
    rate = read_rate("100/minute")

    assert [rate.share(n) for n in (0, 1, 12, 101)] == [100, 100, 8, 1]
