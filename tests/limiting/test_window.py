"""Windows admit what their limit says, and say when there is room again."""

from __future__ import annotations

from bisect import bisect_right

from hypothesis import given
from hypothesis import strategies as st

from fastapi_proxy_di.limiting.rates import Rate, read_rate
from fastapi_proxy_di.limiting.window import EXACT, Standing, Window, window_of

SECOND = 1_000_000


def take(window: Window, now: int, cost: int = 1) -> int:
    """Take if there is room; give the microseconds to wait otherwise."""
    wait = window.wait(now, cost)
    if not wait:
        window.add(cost)
    return wait


def standing(window: Window, now: int) -> Standing:
    """Say what remains at a time."""
    return window.standing(window.wait(now, 0))


def test_moving_window_admits_the_limit_in_every_stretch_of_time() -> None:
    """Also around the full minute, where a fixed window would admit twice the limit."""
    window = window_of(read_rate("3/minute"))

    times = [50, 55, 59, 61, 100, 110, 114, 115, 119]
    admitted = [time for time in times if take(window, time * SECOND) == 0]

    assert admitted == [50, 55, 59, 110, 115, 119]


@given(
    limit=st.integers(1, 6),
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=40),
)
def test_moving_window_is_exact(limit: int, steps: list[tuple[int, int]]) -> None:
    """No stretch holds more than the limit, nothing is refused that fits, waits are exact."""
    window = window_of(Rate(limit, 10, "x"))
    now, takes = 100, list[tuple[int, int]]()
    for pause, cost in steps:
        now += pause

        def used(at: int) -> int:
            return sum(taken for time, taken in takes if time > at - 10)

        fits = used(now) + cost <= limit
        wait = take(window, now, cost)

        assert (wait == 0) == fits
        if fits:
            takes.append((now, cost))
        elif cost <= limit:
            assert used(now + wait) + cost <= limit < used(now + wait - 1) + cost
        assert window.standing(wait).remaining == limit - used(now)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60))
def test_two_windows_admit_at_most_twice_the_limit_and_the_limit_from_the_start(
    pauses: list[int],
) -> None:
    """The first window is exact; a wait that was told is enough and not too long."""
    limit = EXACT + 500
    window = window_of(Rate(limit, 1000, "x"))
    now, times, sums = 5000, list[int](), [0]
    for pause in pauses:
        now += pause
        wait = take(window, now, 300)
        if wait == 0:
            times.append(now)
            sums.append(sums[-1] + 300)
        else:
            assert window.wait(now + wait, 300) == 0
            assert wait <= 2000
        assert sums[-1] - sums[bisect_right(times, now - 1000)] <= 2 * limit
        assert 0 <= window.standing(wait).remaining <= limit


def test_two_windows_weigh_the_previous_one() -> None:
    """A quarter into the window, three quarters of the previous one count."""
    window = window_of(read_rate("2000/minute"))
    assert take(window, 30 * SECOND, 2000) == 0
    assert take(window, 59 * SECOND) == SECOND + 60 * SECOND // 2000

    assert standing(window, 75 * SECOND) == (500, 0, 45 * SECOND)
    assert take(window, 75 * SECOND, 501) > 0
    assert take(window, 75 * SECOND, 500) == 0
    assert standing(window, 200 * SECOND) == (2000, 0, 0)


def test_cost_above_the_limit_is_never_admitted() -> None:
    """The window is told as the time to wait."""
    for text in ("10/minute", "2000/minute"):
        rate = read_rate(text)
        window = window_of(rate)

        assert take(window, 0, rate.limit + 1) == 60 * SECOND
        assert standing(window, 0).remaining == rate.limit
