"""Counts in the memory of this process.

No timer removes a key: each take removes keys whose window has passed, at the old end of the table
that it uses. Above 100,000 keys, the least recently used go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from fastapi_proxy_di.limiting.rates import Rate
from fastapi_proxy_di.limiting.window import EXACT, Standing, Window, window_of

__all__ = ["MAX_KEYS", "Memory"]

MAX_KEYS: Final = 100_000

_Table = OrderedDict[bytes, Window]


class Memory:
    """The windows of all keys of a process.

    Args:
        max_keys: How many windows are kept.
    """

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys: Final = max_keys
        # A table per length: its order, by use, is then the order in which the windows pass.
        self._tables: Final[dict[int, _Table]] = {}
        self._keys = 0

    def __len__(self) -> int:
        return self._keys

    def take_one(self, key: bytes, rate: Rate, cost: int, now: int) -> Standing:
        """Do the same as `take`, which is slower, with one rate in one process."""
        window = self._window(key, rate, now)
        wait = window.wait(now, cost)
        if not wait:
            window.add(cost)
        return window.standing(wait)

    def take(
        self,
        keys: Sequence[bytes],
        rates: Sequence[Rate],
        cost: int,
        now: int,
        *,
        processes: int = 1,
    ) -> list[Standing]:
        """Take ``cost`` from all rates, or from none if one of them refuses it.

        Args:
            keys: The key of each rate.
            rates: The rates.
            cost: How much.
            now: Microseconds of the monotonic clock.
            processes: How many processes share the limits; this one may use its part.
        """
        windows = [self._window(key, rate, now) for key, rate in zip(keys, rates, strict=True)]
        for window, rate in zip(windows, rates, strict=True):
            window.limit = rate.share(processes)
        waits = [window.wait(now, cost) for window in windows]
        if not any(waits):
            for window in windows:
                window.add(cost)
        return [window.standing(wait) for window, wait in zip(windows, waits, strict=True)]

    def _window(self, key: bytes, rate: Rate, now: int) -> Window:
        """Give the window of a key as the most recently used one of its table."""
        kind = rate.window if rate.limit <= EXACT else -rate.window
        table = self._tables.get(kind)
        if table is None:
            table = self._tables[kind] = OrderedDict()
        window = table.get(key)
        if window is None:
            self._keys += 1
            window = table[key] = window_of(rate)
        else:
            table.move_to_end(key)
        window.used_at = now
        self._forget(table, now - 2 * rate.window)
        return window

    def _forget(self, table: _Table, before: int) -> None:
        """Remove the windows of ``table`` last used before a time, and what is too many."""
        while next(iter(table.values())).used_at <= before:
            table.popitem(last=False)
            self._keys -= 1
        while self._keys > self._max_keys:
            max(self._tables.values(), key=len).popitem(last=False)
            self._keys -= 1
