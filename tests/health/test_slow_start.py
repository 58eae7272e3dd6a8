"""SlowStart: weight that grows after a return."""

import pytest

from fastapi_proxy_di.health.slow_start import SlowStart, ramped_share
from tests.pools.samples import pool_of, settings_of


@pytest.mark.parametrize(
    ("elapsed", "share"), [(0, 0.1), (5, 0.1), (25, 0.2), (50, 0.5), (99, 0.9), (100, 1), (500, 1)]
)
def test_ramped_share_grows_in_ten_steps(elapsed: float, share: float) -> None:
    """It grows from a tenth to the whole."""
    assert ramped_share(elapsed, 100) == share


def test_slow_start_raises_the_weight_to_the_full_and_stops() -> None:
    """Until then a step is due every tenth of the time."""
    pool = pool_of(2, weight=4)
    back = pool.destinations[0]
    slow_start = SlowStart(20)

    assert slow_start.step_seconds is None

    slow_start.begin(back, 100.0)

    assert slow_start.step_seconds == 2
    assert slow_start.due(100.0) == [(back, 0.4)]
    assert slow_start.due(110.0) == [(back, 2.0)]
    assert slow_start.due(120.0) == [(back, 4.0)]
    assert slow_start.due(121.0) == []
    assert slow_start.step_seconds is None


def test_slow_start_drops_a_removed_destination() -> None:
    """No step is due for it."""
    pool = pool_of(2)
    slow_start = SlowStart(20)
    slow_start.begin(pool.destinations[1], 0.0)
    pool.replace([settings_of(0)])
    slow_start.due(1.0)

    assert slow_start.step_seconds is None


def test_slow_start_of_no_seconds_is_off() -> None:
    """A destination gets its full weight at once."""
    slow_start = SlowStart(0)
    slow_start.begin(pool_of(1).destinations[0], 0.0)

    assert slow_start.due(0.0) == []
