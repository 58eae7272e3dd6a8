"""How long to wait until a source is asked again."""

from __future__ import annotations

import pytest

from fastapi_proxy_di.discovery.pace import backoff_seconds, refresh_seconds


@pytest.mark.parametrize(
    ("refresh", "ttl", "expected"),
    [(None, 0, 1), (None, 10, 10), (None, 3600, 30), (0.5, 10, 0.5), (600, 10, 600)],
)
def test_refresh_is_the_ttl_within_bounds_or_the_setting(
    refresh: float | None, ttl: float, expected: float
) -> None:
    """And varies by 10 % either way."""
    assert refresh_seconds(refresh, ttl, 0.5) == pytest.approx(expected)
    assert refresh_seconds(refresh, ttl, 0) == pytest.approx(expected * 0.9)
    assert refresh_seconds(refresh, ttl, 1) == pytest.approx(expected * 1.1)


def test_backoff_doubles_up_to_half_a_minute() -> None:
    """However many failures there are."""
    seconds = [backoff_seconds(failures, 0.5) for failures in (1, 2, 3, 4, 5, 6, 7, 100000)]

    assert seconds == [1, 2, 4, 8, 16, 30, 30, 30]
