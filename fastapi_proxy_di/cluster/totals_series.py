"""What one process reports of one upstream: a series of totals, and what of it is to be sent.

A series counts from the start of the upstream in this process. If others have found it ended while
this process was stopped, its counts are in the sum of what has ended: the process then begins a
series that leaves them out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import inf
from typing import Any, Final, NamedTuple

from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.cluster.totals_reading import RawTotals
from fastapi_proxy_di.cluster.totals_rows import WHOLE, Rows, added, rows_of
from fastapi_proxy_di.observability.counts import GONE
from fastapi_proxy_di.observability.families import Numbers

__all__ = ["Changes", "Part", "Series", "parts_of"]

PART_BYTES: Final = 16384
"""The most that is sent at once; four times as much in a second."""

_AGAIN_SECONDS: Final = 60.0
"""After so many seconds a row is sent again, though it has not changed, for a store that went back
to an older state."""

_OVERHEAD: Final = 200
"""Bytes of a series without rows, about: its name and its keys."""

_MARK: Final = 32
"""Bytes of a record, its signature, by which it is known."""

_numbers: Final = count(1)
_logger = logging.getLogger("fastapi_proxy_di.cluster")


class Changes(NamedTuple):
    """What of a series is to be sent.

    Attributes:
        series: The series.
        name: Its name, when they were made.
        removed: Rows that it has no more.
        records: Signed rows that have changed, by address.
    """

    series: Series
    name: str
    removed: Sequence[str]
    records: Sequence[tuple[str, bytes]]


Part = list[Changes]
"""What is sent at once."""


@dataclass(slots=True)
class _Sent:
    mark: bytes
    at: float


class Series:
    """The totals of one upstream in this process.

    Args:
        process: Name of the process.
        numbers: What the metrics of the upstream are read from.

    Attributes:
        upstream: Name of the upstream.
        numbers: What its metrics are read from.
        name: Name of the series.
        fresh: Whether the store does not have it yet.
        ended: Whether the upstream has ended in this process.
        gone: The sum of what has ended, as last read from the store.
    """

    def __init__(self, process: str, numbers: Numbers) -> None:
        self.upstream: Final = numbers.upstream
        self.numbers: Final = numbers
        self.fresh: bool = True
        self.ended = False
        self.gone: RawTotals | None = None
        self._process: Final = process
        self.name: str = self._next_name()
        self._sent: dict[str, _Sent] = {}  # replaced or changed by the event loop alone
        self._left_out: dict[str, dict[str, Any]] = {}

    def changes(self, signer: Signer, now: float) -> Changes:
        """Give what is to be sent; in any thread, but in one at a time.

        Args:
            signer: Signs the rows.
            now: Monotonic seconds.
        """
        rows = self._without_left_out(rows_of(self.numbers, ended=self.ended))
        records = []
        for url, row in rows.items():
            try:
                record = signer.sign(("totals", self.upstream, self.name, url), row)
            except ValueError as error:  # an address of thousands of characters
                _logger.warning("%s: totals are left out: %s", self.upstream, error)
                continue
            sent = self._sent.get(url)
            if sent is None or sent.mark != record[:_MARK] or now >= sent.at + _AGAIN_SECONDS:
                records.append((url, record))
        # Counts that have moved to `GONE` are sent together with their removal.
        records.sort(key=lambda one: one[0] not in {GONE, WHOLE})
        removed = [url for url in self._sent.copy() if url not in rows]
        return Changes(self, self.name, removed, records)

    def sent(self, changes: Changes, now: float) -> None:
        """Note that the store has taken changes."""
        self.fresh = False
        for url in changes.removed:
            self._sent.pop(url, None)
        for url, record in changes.records:
            self._sent[url] = _Sent(record[:_MARK], now)

    def send_all(self) -> None:
        """Send all rows again."""
        for one in self._sent.values():
            one.at = -inf

    def lost(self) -> None:
        """Note that the store has lost the series, so that all of it is sent again."""
        self.fresh = True
        self._sent = {}

    def counted(self, rows: Rows) -> None:
        """Begin another series, without these rows: they are in the sum of what has ended."""
        self.lost()
        self.name = self._next_name()
        for url, row in rows.items():
            self._left_out[url] = added(self._left_out.get(url, {}), row["counts"])

    def _without_left_out(self, rows: Rows) -> Rows:
        for url in [one for one in self._left_out if one not in rows]:
            moved = self._left_out.pop(url)
            self._left_out[GONE] = added(self._left_out.get(GONE, {}), moved)
        for url, counts in self._left_out.items():
            if url in rows:
                rows[url]["counts"] = added(rows[url]["counts"], counts, -1)
        return rows

    def _next_name(self) -> str:
        return f"{self._process}.{next(_numbers)}"


def parts_of(all_changes: Sequence[Changes]) -> list[Part]:
    """Cut changes into parts of at most `PART_BYTES`; a series that has none is in one as well."""
    parts: list[Part] = [[]]
    room = PART_BYTES

    def add(one: Changes, size: int) -> None:
        nonlocal room
        if size > room and parts[-1]:
            parts.append([])
            room = PART_BYTES
        parts[-1].append(one)
        room -= size

    for changes in all_changes:
        removed, records = changes.removed, changes.records
        # The removed ones go with `GONE`, which is the first or second record.
        some, size = list(records[:2]), _OVERHEAD + sum(len(url) + 20 for url in removed)
        size += sum(len(url) + len(record) for url, record in some)
        for url, record in records[2:]:
            needs = len(url) + len(record)
            if size + needs > PART_BYTES:
                add(changes._replace(removed=removed, records=some), size)
                removed, some, size = (), [], _OVERHEAD
            some.append((url, record))
            size += needs
        add(changes._replace(removed=removed, records=some), size)
    return parts
