"""Adds the totals of processes that have ended, or went missing, to one sum, each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from random import Random
from time import monotonic
from typing import Final

from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.cluster.state import SharedState
from fastapi_proxy_di.cluster.store import Store
from fastapi_proxy_di.cluster.totals_reading import (
    GONE_SERIES,
    Checked,
    RawTotals,
    TotalsReader,
    pairs_of,
)
from fastapi_proxy_di.cluster.totals_rows import Rows, merged
from fastapi_proxy_di.cluster.totals_scripts import ENDED, FOLD, OFFER, STAGE
from fastapi_proxy_di.cluster.totals_series import PART_BYTES

__all__ = ["EndedTotals"]

_SILENT_INTERVALS: Final = 4
"""After so many intervals without a report a series has ended; its process begins another one if
it goes on after all."""

_UPSTREAMS_AT_ONCE: Final = 500
_SERIES_AT_ONCE: Final = 20


class EndedTotals:
    """Looks for series that have ended, and adds them to the sum.

    Args:
        store: The store.
        signer: Signs the sum.
        state: The shared records.
        reader: Reads the totals.
        interval: Seconds between two reports of a process.
        random: Decides which process looks.
    """

    def __init__(
        self,
        store: Store,
        signer: Signer,
        state: SharedState,
        reader: TotalsReader,
        interval: float,
        random: Random,
    ) -> None:
        self._store: Final = store
        self._signer: Final = signer
        self._state: Final = state
        self._reader: Final = reader
        self._interval: Final = interval
        self._random: Final = random

    async def look(self, upstreams: Sequence[str], took: float) -> None:
        """Add what has ended; one process of all looks, in each interval, on average.

        It ends after half an interval, so that this process goes on reporting; the next look goes
        on where it ended.

        Args:
            upstreams: Names of the upstreams.
            took: Seconds that the last report took, which makes those of other processes as rare.

        Raises:
            StoreLost: The store cannot be reached.
        """
        if self._random.random() * self._state.alive >= 1:
            return
        end = monotonic() + self._interval / 2
        silent_ms = round(_SILENT_INTERVALS * (self._interval + took) * 1000)
        for start in range(0, len(upstreams), _UPSTREAMS_AT_ONCE):
            some = upstreams[start : start + _UPSTREAMS_AT_ONCE]
            names = [self._state.keys.series(one) for one in some]
            found = await self._store.run(ENDED, names, silent_ms)
            for upstream, ended in zip(some, found, strict=True):
                if ended:
                    series = [one.decode(errors="replace") for one in ended]
                    await self.add(upstream, series[:_SERIES_AT_ONCE])
                    if monotonic() >= end:
                        return

    async def add(self, upstream: str, ended: Sequence[str]) -> None:
        """Add series to the sum of what has ended.

        Raises:
            StoreLost: The store cannot be reached.
        """
        raw = await self._reader.all(upstream)
        keys = self._state.keys
        for series in ended:
            add = partial(self._added, upstream, raw, series, ended)
            records = await self._reader.checked(upstream, raw.size, add)
            if records is None:
                continue  # a process with that version adds it
            await self._stage(upstream, records)
            version = await self._store.run(
                FOLD,
                (
                    *(keys.series(upstream), keys.totals(upstream, series), keys.gone(upstream)),
                    keys.next_gone(upstream, self._state.process),
                ),
                *(series, raw.reported.get(series, b""), raw.version, len(records)),
            )
            if version:  # else it goes on, or another process was faster
                new = await self._reader.gone(upstream)
                raw.version, raw.gone = new.version, new.gone

    async def offer(self, upstream: str, gone: bytes) -> None:
        """Give the sum of what has ended to a store that has lost it.

        Raises:
            StoreLost: The store cannot be reached.
        """
        records = dict(pairs_of(gone))
        await self._stage(upstream, records)
        keys = self._state.keys
        staged = keys.next_gone(upstream, self._state.process)
        await self._store.run(OFFER, (keys.gone(upstream), staged), len(records))

    async def _stage(self, upstream: str, records: Mapping[bytes, bytes]) -> None:
        """Write a new sum in parts, since it may be long."""
        key = self._state.keys.next_gone(upstream, self._state.process)
        first, size, some = "1", 0, list[bytes]()
        for pair in records.items():
            some += pair
            size += sum(map(len, pair))
            if size > PART_BYTES:
                await self._store.run(STAGE, (key,), first, *some)
                first, size, some = "", 0, []
        if some or first:
            await self._store.run(STAGE, (key,), first, *some)

    def _added(
        self, upstream: str, raw: RawTotals, series: str, ended: Sequence[str], check: Checked
    ) -> dict[bytes, bytes] | None:
        """Give the fields of the new sum; ``None`` if rows have a later format."""
        # Addresses that no process has any more share one row, so that the sum stays bounded.
        known = {
            field.decode(errors="replace")
            for name, one in raw.series.items()
            if name not in ended
            for field, _ in pairs_of(one)
        }
        gone = check.rows(GONE_SERIES, raw.gone)
        rows = check.rows(series, raw.series.get(series, b""))
        if check.newer:
            return None
        return _signed(self._signer, upstream, merged(gone, rows, known))


def _signed(signer: Signer, upstream: str, rows: Rows) -> dict[bytes, bytes]:
    return {
        url.encode(errors="replace"): signer.sign(("totals", upstream, GONE_SERIES, url), row)
        for url, row in rows.items()
    }
