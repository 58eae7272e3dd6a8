"""Reads the totals of all processes, one upstream at a time; believes signed rows only."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi_proxy_di.cluster.signing import NewerFormat, Signer
from fastapi_proxy_di.cluster.state import SharedState
from fastapi_proxy_di.cluster.store import Store, StoreLost
from fastapi_proxy_di.cluster.totals_rows import Rows, sum_of
from fastapi_proxy_di.cluster.totals_scripts import READ_ROWS, READ_SERIES, VERSION

__all__ = ["AllRows", "TotalsReader", "process_of", "signed_rows"]

THREAD_BYTES: Final = 16384
"""Rows of more bytes are read, and made, in a thread."""

_TRIES: Final = 5

_Raw = Mapping[bytes, bytes]


@dataclass(slots=True)
class AllRows:
    """The totals of one upstream, of all processes.

    Attributes:
        version: Version of the sum of what has ended.
        gone: The sum of what has ended.
        series: The rows of each series that has not ended.
        reported: When each has last reported, as the store has it.
        newer: Series with rows that a later version of the package has written.
    """

    version: bytes
    gone: Rows
    series: dict[str, Rows]
    reported: dict[str, bytes]
    newer: set[str]

    def sum(self, alive: Collection[str]) -> Rows:
        """Add all rows; gauges only of the processes that are alive."""
        parts = [(rows, process_of(name) in alive) for name, rows in self.series.items()]
        return sum_of([(self.gone, False), *parts])


def process_of(series: str) -> str:
    """Give the name of the process that reports a series."""
    return series.rpartition(".")[0]


class TotalsReader:
    """Reads the totals of upstreams.

    Args:
        store: The store.
        signer: Checks the rows.
        state: The shared records, for the keys and for what is ignored.
    """

    def __init__(self, store: Store, signer: Signer, state: SharedState) -> None:
        self._store: Final = store
        self._signer: Final = signer
        self._state: Final = state

    async def all(self, upstream: str) -> AllRows:
        """Read the rows of all processes.

        No series is missing or read twice because it ends meanwhile: reading then begins anew.

        Raises:
            StoreLost: The store cannot be reached, or series end all the time.
        """
        for _ in range(_TRIES):
            found = await self._read(upstream)
            if found is not None:
                return found
        raise StoreLost("the totals change while they are being read")

    async def own(self, upstream: str, series: str) -> Rows:
        """Read the rows of one series, also if it has ended.

        Raises:
            StoreLost: The store cannot be reached.
        """
        keys = self._state.keys
        found = await self._store.run(
            READ_ROWS, (keys.gone(upstream), keys.totals(upstream, series))
        )
        (rows,), _ = await self._signed(upstream, {series: _pairs(found[1])})
        return rows

    async def gone(self, upstream: str) -> tuple[bytes, dict[bytes, bytes]]:
        """Read the version and the fields of the sum of what has ended, as the store has them.

        Raises:
            StoreLost: The store cannot be reached.
        """
        keys = self._state.keys
        raw = await self._store.run(READ_ROWS, (keys.gone(upstream), keys.gone(upstream)))
        return raw[0], _pairs(raw[1])

    async def _read(self, upstream: str) -> AllRows | None:
        keys = self._state.keys
        gone_key = keys.gone(upstream)
        flat, gone = await self._store.run(READ_SERIES, (keys.series(upstream), gone_key))
        raw_gone = _pairs(gone)
        version = raw_gone.get(VERSION, b"")
        reported = {
            name.decode(errors="replace"): at
            for name, at in zip(flat[::2], flat[1::2], strict=True)
        }
        left = list(reported)
        raw: dict[str, _Raw] = {}
        while left:
            key_of = [keys.totals(upstream, name) for name in left]
            now, *answers = await self._store.run(READ_ROWS, (gone_key, *key_of))
            if now != version:
                return None
            raw.update(zip(left, map(_pairs, answers), strict=False))
            left = left[len(answers) :]
        (gone_rows, *rows), newer = await self._signed(upstream, {"": raw_gone, **raw})
        series = dict(zip(raw, rows, strict=True))
        # Without a signed row nobody who has the key has written it.
        found = {name: one for name, one in series.items() if one or name in newer}
        return AllRows(version, gone_rows, found, reported, newer)

    async def _signed(self, upstream: str, raw: Mapping[str, _Raw]) -> tuple[list[Rows], set[str]]:
        size = sum(len(record) for one in raw.values() for record in one.values())
        arguments = self._signer, upstream, raw
        read = to_thread(_read_all, *arguments) if size > THREAD_BYTES else None
        rows, newer, forged = _read_all(*arguments) if read is None else await read
        if forged:
            self._state.ignore("it is not signed with the key of this app", upstream, forged)
        for _ in newer:
            self._state.ignore("a later version of the package has written it", upstream)
        return rows, newer


def _read_all(
    signer: Signer, upstream: str, raw: Mapping[str, _Raw]
) -> tuple[list[Rows], set[str], int]:
    found, newer, forged = [], set(), 0
    for name, one in raw.items():
        rows, number, is_newer = signed_rows(signer, upstream, name, one)
        found.append(rows)
        forged += number
        if is_newer:
            newer.add(name)
    return found, newer, forged


def signed_rows(signer: Signer, upstream: str, series: str, raw: _Raw) -> tuple[Rows, int, bool]:
    """Give the rows that are signed, the number of those that are not, and whether one is newer.

    Args:
        signer: Checks them.
        upstream: Name of the upstream.
        series: Name of the series, ``""`` for the sum of what has ended.
        raw: The fields of the store.
    """
    rows: Rows = {}
    forged, newer = 0, False
    for field, record in raw.items():
        if field.startswith(b"#"):
            continue
        body: dict[str, Any] | None = None
        url = field.decode(errors="replace")
        try:
            body = signer.read(("totals", upstream, series, url), record)
        except NewerFormat:
            newer = True
            continue
        except (ValueError, TypeError, KeyError):
            pass
        if body is None or not isinstance(body.get("counts"), dict):
            forged += 1
        else:
            rows[url] = body
    return rows, forged, newer


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    fields: Iterable[bytes] = flat[::2]
    return dict(zip(fields, flat[1::2], strict=True))
