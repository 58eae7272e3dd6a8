"""The totals that processes share: each reports what it has counted, and any one reads them all.

Nothing of it is on the path of a request: counts are read each ``cluster.snapshot_interval``.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import to_thread
from collections.abc import Callable, Collection, Sequence
from random import Random
from threading import Lock
from time import monotonic
from typing import Any, Final

from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.cluster.state import SharedState
from fastapi_proxy_di.cluster.store import Store, StoreLost
from fastapi_proxy_di.cluster.totals_ended import EndedTotals
from fastapi_proxy_di.cluster.totals_reading import THREAD_BYTES, TotalsReader
from fastapi_proxy_di.cluster.totals_rows import Rows
from fastapi_proxy_di.cluster.totals_scripts import SEND
from fastapi_proxy_di.cluster.totals_series import Changes, Part, Series, parts_of
from fastapi_proxy_di.observability.families import Numbers

__all__ = ["SharedTotals"]

_PART_SECONDS: Final = 0.25
"""Between two parts of a report."""

_LEAST_SECONDS: Final = 0.05
_ROW_BYTES: Final = 100
"""Of a row that has counted nothing, about."""

_logger = logging.getLogger("fastapi_proxy_di.cluster")


class SharedTotals:
    """Reports the totals of this process, and reads those of all.

    Args:
        store: The store.
        signer: Signs and checks the rows.
        state: The shared records, for names, keys and the number of processes.
        interval: Seconds between two reports.
        random: Decides which process looks for what has ended.
    """

    def __init__(
        self, store: Store, signer: Signer, state: SharedState, interval: float, random: Random
    ) -> None:
        self._store: Final = store
        self._signer: Final = signer
        self._state: Final = state
        self._interval: Final = interval
        self._reader: Final = TotalsReader(store, signer, state)
        self._ended: Final = EndedTotals(store, signer, state, self._reader, interval, random)
        self._series: list[Series] = []
        self._bytes = 0
        self._parts_sent = 1
        self._whole_at = 0.0
        self._lock: Final = Lock()  # the thread of a report that was cancelled goes on

    def add(self, numbers: Numbers) -> Callable[[], None]:
        """Report an upstream from now on.

        Returns:
            A function that says that the upstream has ended; its last counts are reported still.
        """
        series = Series(self._state.process, numbers)
        self._series.append(series)

        def end() -> None:
            series.ended = True

        return end

    @property
    def running(self) -> tuple[Numbers, ...]:
        """What is known in this process of the upstreams that run here."""
        return tuple([one.numbers for one in self._series if not one.ended])

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            began = monotonic()
            try:
                await self.report()
                took = monotonic() - began
                await self._ended.look([one.upstream for one in self._series], took)
            except StoreLost:
                pass
            except Exception:
                _logger.exception("the totals could not be reported")
            await asyncio.sleep(max(_LEAST_SECONDS, began + self._interval - monotonic()))

    async def report(self, pause: float = _PART_SECONDS) -> None:
        """Send what has changed.

        Args:
            pause: Seconds between two parts of it.

        Raises:
            StoreLost: The store cannot be reached.
        """
        ended = [one for one in self._series if one.ended]
        rows = sum([len(one.numbers.metrics.all()) for one in self._series])
        if max(self._bytes, rows * _ROW_BYTES) > THREAD_BYTES:
            parts = await to_thread(self._parts)
        else:
            parts = self._parts()
        self._parts_sent = len(parts)
        for number, part in enumerate(parts):
            if number:
                await asyncio.sleep(pause)
            await self._send(part)
        # Its rows stay in the store, and become a part of what has ended.
        self._series = [one for one in self._series if one not in ended or one.fresh]

    def store_is_back(self) -> None:
        """Report everything again, because it may be another store, or an older state of it."""
        for one in self._series:
            one.send_all()
        self._wait_for_all()

    def _wait_for_all(self) -> None:
        """Give no sums until all processes have reported again: they would be too low."""
        seconds = 2 * self._interval + self._parts_sent * _PART_SECONDS
        self._whole_at = monotonic() + seconds

    async def finish(self) -> None:
        """Send the last counts, as fast as possible; not if the store is lost."""
        try:
            await self.report(0)
            if any(one.fresh for one in self._series):  # the store had ended or lost them
                await self.report(0)
        except StoreLost:
            pass
        except Exception:
            _logger.exception("the last totals could not be reported")

    async def all(self, upstream: str, alive: Collection[str]) -> Rows:
        """Give the totals of all processes.

        Args:
            upstream: Name of the upstream.
            alive: Names of the processes whose gauges count.

        Raises:
            StoreLost: The store cannot be reached, or it has lost totals, which the processes are
                reporting again.
        """
        raw = await self._reader.all(upstream)
        own = [one.name for one in self._series if one.upstream == upstream and not one.fresh]
        if not raw.series.keys() >= set(own):
            self._wait_for_all()
        if monotonic() < self._whole_at:
            raise StoreLost("the store has lost totals, which are being reported again")
        return await self._reader.checked(upstream, raw.size, lambda check: raw.sum(check, alive))

    def _parts(self) -> list[Part]:
        now = monotonic()
        with self._lock:
            changes = [one.changes(self._signer, now) for one in tuple(self._series)]
        self._bytes = sum(len(record) for one in changes for _, record in one.records)
        return parts_of(changes)

    async def _send(self, part: Part) -> None:
        keys = self._state.keys
        current = [one for one in part if one.name == one.series.name]
        names: list[str] = []
        arguments: list[Any] = []
        for one in current:
            upstream = one.series.upstream
            names += (keys.series(upstream), keys.totals(upstream, one.name), keys.gone(upstream))
            arguments += _arguments(one)
        if not current:
            return
        answer: Sequence[bytes] = await self._store.run(SEND, names, *arguments)
        for one, result, version in zip(current, answer[::2], answer[1::2], strict=True):
            await self._sent(one, result, version)

    async def _sent(self, changes: Changes, result: bytes, version: bytes) -> None:
        series = changes.series
        upstream = series.upstream
        if result == b"ok":
            series.sent(changes, monotonic())
        elif result == b"folded":
            series.counted(await self._reader.own(upstream, changes.name))
        else:
            series.lost()
            self._wait_for_all()
        known = series.gone
        if not version and known is not None and known.gone:  # the store was emptied
            await self._ended.offer(upstream, known.gone)
        elif version != (b"" if known is None else known.version):
            series.gone = await self._reader.gone(upstream)


def _arguments(changes: Changes) -> list[Any]:
    removed, records = changes.removed, changes.records
    fresh = "1" if changes.series.fresh else ""
    found = [changes.name, fresh, len(removed), len(records), *removed]
    for pair in records:
        found += pair
    return found
