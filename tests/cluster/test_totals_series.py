"""What a process reports: what has changed, in parts, without what was counted already."""

from __future__ import annotations

from fastapi_proxy_di.cluster.members import process_name
from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.cluster.totals_series import PART_BYTES, Changes, Part, Series, parts_of
from tests.cluster.counting import A, B, numbers_of

SIGNER = Signer(b"k" * 32, "shop")
HOUR = 3600.0


def size_of(part: Part) -> int:
    """Give the bytes of the rows of a part."""
    return sum(len(url) + len(record) for one in part for url, record in one.records)


def sent(changes: Changes) -> list[str]:
    """Give the rows of changes."""
    return [url for url, _ in changes.records]


def test_rows_that_have_changed_are_sent() -> None:
    """All of them at first and once a minute; what did not reach the store is sent again."""
    numbers = numbers_of(A, B)
    series = Series("host:1:a", numbers)
    first = series.changes(SIGNER, 0)
    assert sorted(sent(first)) == ["", A, B]
    assert sorted(sent(series.changes(SIGNER, 1))) == ["", A, B]
    series.sent(first, 1)
    assert sent(series.changes(SIGNER, 2)) == []

    numbers.metrics.all()[1].attempts += 1
    assert sent(series.changes(SIGNER, 3)) == [B]
    assert sorted(sent(series.changes(SIGNER, 61))) == ["", A, B]
    series.send_all()
    assert sorted(sent(series.changes(SIGNER, 4))) == ["", A, B]


def test_counts_that_move_are_sent_in_one_part() -> None:
    """The removal of a row goes with the row that has its counts now, also among many."""
    urls = [f"http://10.0.{n // 250}.{n % 250}" for n in range(1000)]
    numbers = numbers_of(*urls)
    series = Series("host:1:a", numbers)
    series.sent(series.changes(SIGNER, 0), 0)
    metrics = numbers.metrics
    for counts in metrics.all():
        counts.attempts += 10**9
    moved = numbers.destinations()
    assert isinstance(moved, list)
    gone = [moved.pop() for _ in range(300)]
    metrics.replaced((), gone)
    metrics._left_at.update({one.url: -HOUR for one in gone})
    metrics.move_gone()

    parts = parts_of([series.changes(SIGNER, 1)])
    assert len(parts) > 1
    (first,) = parts[0]
    assert len(first.removed) == 300
    assert "gone" in sent(first)
    assert not any(one.removed for part in parts[1:] for one in part)


def test_parts_are_bounded_and_complete() -> None:
    """With a thousand destinations of long names, and with a thousand upstreams."""
    urls = [f"http://{'a' * 60}.{'b' * 60}.example:{n}/{'c' * 200}" for n in range(1, 1001)]
    numbers = numbers_of(*urls)
    for counts in numbers.metrics.all():
        counts.attempts = 10**12
        for status in range(200, 220):
            counts.series("GET", status, None).observe(0.1)
    upstreams = [numbers_of(A, upstream=f"tenant-{n}") for n in range(1000)]
    changes = [Series("host:1:a", one).changes(SIGNER, 0) for one in (numbers, *upstreams)]
    parts = parts_of(changes)

    assert max(map(size_of, parts)) <= PART_BYTES
    found = [(one.name, url) for part in parts for one in part for url in sent(one)]
    assert len(found) == len(set(found)) == 1001 + 2000
    assert len(parts) <= 2 * sum(map(size_of, parts)) / PART_BYTES


def test_series_without_changes_is_reported_all_the_same() -> None:
    """Else others would find that it has ended."""
    series = Series("host:1:a", numbers_of(A))
    series.sent(series.changes(SIGNER, 0), 0)
    ((one,),) = parts_of([series.changes(SIGNER, 1)])
    assert (one.removed, one.records) == ([], [])


def test_row_that_is_too_long_is_left_out() -> None:
    """The others are reported."""
    series = Series("host:1:a", numbers_of(A, "asgi://" + "a" * 70000 + ":app"))
    assert set(sent(series.changes(SIGNER, 0))) == {"", A}


def test_next_series_leaves_out_what_was_counted() -> None:
    """Also when the counts of a destination have moved since."""
    numbers = numbers_of(A, B)
    series = Series(process_name(), numbers)
    one, other = numbers.metrics.all()
    one.attempts, other.attempts = 5, 3
    before = series.name
    series.counted({A: {"counts": {"attempts": 4}}, B: {"counts": {"attempts": 3}}})
    assert series.fresh
    assert series.name != before

    def attempts() -> dict[str, int]:
        found = series.changes(SIGNER, 0).records
        bodies = {
            url: SIGNER.read(("totals", "billing", series.name, url), record) or {}
            for url, record in found
        }
        return {url: body["counts"]["attempts"] for url, body in bodies.items() if body["counts"]}

    assert attempts() == {A: 1}
    metrics = numbers.metrics
    moved = numbers.destinations()
    assert isinstance(moved, list)
    other.attempts += 2
    metrics.replaced((), [moved.pop()])
    metrics._left_at[B] = -HOUR * 9
    metrics.move_gone()
    assert attempts() == {A: 1, "gone": 2}
