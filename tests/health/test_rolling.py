"""RollingTotal and RollingCount: how many in the last seconds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_proxy_di.health.rolling import RollingCount, RollingTotal


def test_rolling_total_counts_everything_before_the_first_mark() -> None:
    """They count as if they had just happened."""
    assert RollingTotal(60).read(1000, 7) == 7


def test_rolling_total_drops_what_has_left_the_window() -> None:
    """Two windows later a burst counts no more."""
    rolling = RollingTotal(60)
    rolling.mark(0, 100)

    assert rolling.read(59, 100) == 100
    rolling.mark(59, 100)
    assert rolling.read(200, 100) == 0


def test_rolling_total_spreads_growth_between_marks() -> None:
    """Of 1000 events in 100 seconds without a mark, 600 are in the last 60 seconds."""
    rolling = RollingTotal(60)
    rolling.mark(0, 0)

    assert pytest.approx(rolling.read(100, 1000)) == 600


def test_rolling_total_keeps_few_marks() -> None:
    """Frequent marks need no more memory."""
    rolling = RollingTotal(10)
    for step in range(10_000):
        rolling.mark(step / 100, step)

    assert len(rolling._marks) <= 12


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 20)), min_size=1, max_size=60))
def test_rolling_total_stays_near_the_exact_count(steps: list[tuple[float, int]]) -> None:
    """Read at each event, it errs by at most the events near the edge of the window."""
    rolling = RollingTotal(60)
    now, total = 0.0, 0
    events: list[tuple[float, int]] = []
    rolling.mark(now, total)
    for pause, count in steps:
        now += pause
        total += count
        events.append((now, count))
        rolling.mark(now, total)
        growth = rolling.read(now, total)
        # Marks lie up to six seconds and one gap of thirty apart, so an event may count so far off.
        least = sum(count for at, count in events if at > now - 60 + 36)
        most = sum(count for at, count in events if at >= now - 60 - 36)

        assert least - 1e-6 <= growth <= most + 1e-6


@given(st.lists(st.floats(0, 30), max_size=100))
def test_rolling_count_drops_events_late_and_never_early(pauses: list[float]) -> None:
    """It is never below the exact count, and never above that of a window a tenth longer."""
    rolling = RollingCount(60)
    now = 0.0
    events: list[float] = []
    for pause in pauses:
        now += pause
        rolling.add(now)
        events.append(now)
        count = rolling.read(now)

        assert sum(at > now - 60 for at in events) <= count
        assert count <= sum(at >= now - 66.001 for at in events)
    assert rolling.read(now + 100) == 0
    rolling.add(now + 100)
    assert rolling._buckets == ((now + 100, 1),)


@given(st.lists(st.floats(0, 30), max_size=20))
def test_reading_changes_nothing(pauses: list[float]) -> None:
    """A status page in another thread reads at any time, and the next decision is the same."""
    read, unread = (RollingTotal(60), RollingCount(60)), (RollingTotal(60), RollingCount(60))
    now = 0.0
    for total, pause in enumerate(pauses):
        now += pause
        read[0].read(now, total)
        read[1].read(now)
        for one in (read, unread):
            one[0].mark(now, total)
            one[1].add(now)

        assert read[0].read(now, total) == unread[0].read(now, total)
        assert read[1].read(now) == unread[1].read(now)
