"""Adds the totals of processes that have ended, or went missing, to one sum, each once."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Sequence
from random import Random
from typing import Final

from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.cluster.state import SharedState
from fastapi_proxy_di.cluster.store import Store
from fastapi_proxy_di.cluster.totals_reading import AllRows, TotalsReader
from fastapi_proxy_di.cluster.totals_rows import Rows, merged
from fastapi_proxy_di.cluster.totals_scripts import ENDED, FOLD

__all__ = ["EndedTotals"]

_SILENT_INTERVALS: Final = 4
"""After so many intervals without a report a series has ended; its process begins another one if
it goes on after all."""

_UPSTREAMS_AT_ONCE: Final = 500


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
        self._silent_ms: Final = round(_SILENT_INTERVALS * interval * 1000)
        self._random: Final = random

    async def look(self, upstreams: Sequence[str]) -> None:
        """Add what has ended; one process of all looks, in each interval, on average.

        Raises:
            StoreLost: The store cannot be reached.
        """
        if self._random.random() * self._state.alive >= 1:
            return
        for start in range(0, len(upstreams), _UPSTREAMS_AT_ONCE):
            some = upstreams[start : start + _UPSTREAMS_AT_ONCE]
            names = [self._state.keys.series(one) for one in some]
            found = await self._store.run(ENDED, names, self._silent_ms)
            for upstream, ended in zip(some, found, strict=True):
                if ended:
                    await self.add(upstream, [one.decode(errors="replace") for one in ended])

    async def add(self, upstream: str, ended: Sequence[str]) -> None:
        """Add series to the sum of what has ended.

        Raises:
            StoreLost: The store cannot be reached.
        """
        rows = await self._reader.all(upstream)
        keys = self._state.keys
        for series in ended:
            if series in rows.newer or "" in rows.newer:
                continue  # a process with that version adds it
            gone, records = await to_thread(self._merged, upstream, rows, series, ended)
            version = await self._store.run(
                FOLD,
                (keys.series(upstream), keys.totals(upstream, series), keys.gone(upstream)),
                *(series, rows.reported.get(series, b""), rows.version, *records),
            )
            if not version:
                continue  # it goes on, or another process was faster
            rows.version, rows.gone = version, gone
            rows.series.pop(series, None)

    def _merged(
        self, upstream: str, rows: AllRows, series: str, ended: Sequence[str]
    ) -> tuple[Rows, list[bytes | str]]:
        """Give the new sum, and its fields with the signed rows."""
        # Addresses that no process has any more share one row, so that the sum stays bounded.
        living = [one for name, one in rows.series.items() if name not in ended]
        known = {url for one in living for url in one}
        gone = merged(rows.gone, rows.series.get(series, {}), known)
        return gone, _signed(self._signer, upstream, gone)


def _signed(signer: Signer, upstream: str, rows: Rows) -> list[bytes | str]:
    fields: list[bytes | str] = []
    for url, row in rows.items():
        fields += (url, signer.sign(("totals", upstream, "", url), row))
    return fields
