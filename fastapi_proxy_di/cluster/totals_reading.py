"""Reads the totals of all processes, one upstream at a time; believes signed rows only."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fastapi_proxy_di.cluster.signing import NewerFormat, Signer
from fastapi_proxy_di.cluster.state import SharedState
from fastapi_proxy_di.cluster.store import Store, StoreLost
from fastapi_proxy_di.cluster.totals_rows import Rows, sum_of
from fastapi_proxy_di.cluster.totals_scripts import READ_ROWS, READ_SERIES

__all__ = ["Checked", "RawTotals", "TotalsReader", "pairs_of"]

THREAD_BYTES: Final = 16384
"""Rows of more bytes are read, and made, in a thread."""

GONE_SERIES: Final = ""
"""Stands for a series in the signature of the sum of what has ended."""

_TRIES: Final = 5
_SERIES_AT_ONCE: Final = 100
_LENGTH: Final = 4
"""Bytes of the length of a text."""

_T = TypeVar("_T")


@dataclass(slots=True)
class RawTotals:
    """The totals of one upstream, of all processes, as the store has them.

    They are text, and are read one series after the other, because the objects of all rows of
    many processes at once would take long to collect.

    Attributes:
        version: Version of the sum of what has ended.
        gone: The sum of what has ended.
        series: The rows of each series that has not ended.
        reported: When each has last reported, as the store has it.
    """

    version: bytes
    gone: bytes
    series: dict[str, bytes]
    reported: dict[str, bytes]

    def sum(self, check: Checked, alive: Collection[str]) -> Rows:
        """Add all rows; gauges only of the processes that are alive."""
        return sum_of(self._parts(check, alive))

    def _parts(self, check: Checked, alive: Collection[str]) -> Iterator[tuple[Rows, bool]]:
        yield check.rows(GONE_SERIES, self.gone), False
        for name, raw in self.series.items():
            yield check.rows(name, raw), name.rpartition(".")[0] in alive

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.gone) + sum(map(len, self.series.values()))


class _TotalsChanged(StoreLost):
    """Totals have changed while they were being read."""


class Checked:
    """Reads rows that are signed, and counts those that are not.

    Args:
        signer: Checks them.
        upstream: Name of the upstream.

    Attributes:
        forged: Number of rows that are not signed with the key of the app.
        newer: Series with rows that a later version of the package has written.
    """

    def __init__(self, signer: Signer, upstream: str) -> None:
        self.forged: int = 0
        self.newer: set[str] = set()
        self._signer: Final = signer
        self._upstream: Final = upstream

    def rows(self, series: str, raw: bytes) -> Rows:
        """Give the rows of a series."""
        found: Rows = {}
        for field, record in pairs_of(raw):
            if field.startswith(b"#"):
                continue
            url = field.decode(errors="replace")
            body: dict[str, Any] | None = None
            try:
                body = self._signer.read(("totals", self._upstream, series, url), record)
            except NewerFormat:
                self.newer.add(series)
                continue
            except (ValueError, TypeError, KeyError):
                pass
            if body is None or not isinstance(body.get("counts"), dict):
                self.forged += 1
            else:
                found[url] = body
        return found


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

    async def all(self, upstream: str) -> RawTotals:
        """Read the rows of all processes.

        No series is missing or read twice because it ends meanwhile: reading then begins anew.

        Raises:
            StoreLost: The store cannot be reached, or series end all the time.
        """
        keys = self._state.keys

        async def read() -> RawTotals:
            version, flat = await self._store.run(
                READ_SERIES, (keys.series(upstream), keys.gone(upstream))
            )
            names = [name.decode(errors="replace") for name in flat[::2]]
            reported = dict(zip(names, flat[1::2], strict=True))
            return await self._scan(upstream, {GONE_SERIES: b"", **reported}, version)

        return await _repeated(read)

    async def own(self, upstream: str, series: str) -> Rows:
        """Read the rows of one series, also if it has ended.

        Raises:
            StoreLost: The store cannot be reached.
        """
        found = await _repeated(lambda: self._scan(upstream, {series: b""}))
        raw = found.series[series]
        return await self.checked(upstream, len(raw), lambda check: check.rows(series, raw))

    async def gone(self, upstream: str) -> RawTotals:
        """Read the sum of what has ended, and no series.

        Raises:
            StoreLost: The store cannot be reached.
        """
        return await _repeated(lambda: self._scan(upstream, {GONE_SERIES: b""}))

    async def checked(self, upstream: str, size: int, read: Callable[[Checked], _T]) -> _T:
        """Read rows, in a thread if they are many, and tell what of them is ignored.

        Args:
            upstream: Name of the upstream.
            size: Number of bytes of the rows.
            read: Reads them.
        """
        check = Checked(self._signer, upstream)
        found = await to_thread(read, check) if size > THREAD_BYTES else read(check)
        if check.forged:
            self._state.ignore("it is not signed with the key of this app", upstream, check.forged)
        if check.newer:
            self._state.ignore("a later version of the package has written it", upstream)
        return found

    async def _scan(
        self, upstream: str, reported: dict[str, bytes], version: bytes | None = None
    ) -> RawTotals:
        """Read series piece by piece, so that no answer takes long.

        A series that reports meanwhile is read anew, since counts move between its rows.

        Args:
            upstream: Name of the upstream.
            reported: The series, each with the time of its last report.
            version: Version of the sum of what has ended, if it was read before.
        """
        keys = self._state.keys
        start = (keys.series(upstream), keys.gone(upstream))
        found: dict[str, bytes] = {}
        pieces: list[bytes] = []
        left, cursor = list(reported), b"0"
        tries = _TRIES + len(left)
        while left:
            some = left[:_SERIES_AT_ONCE]
            names = (*start, *(self._key(upstream, name) for name in some))
            answer = await self._store.run(READ_ROWS, names, cursor, *some)
            now, cursor, *answers = answer
            if version is None:
                version = now
            given = tuple(zip(some, answers[::2], answers[1::2], strict=False))
            again = pieces and given[0][1] != reported[some[0]]
            if again or now != version:
                tries -= 1
                if now != version or not tries:
                    raise _TotalsChanged("the totals change while they are being read")
                cursor, pieces = b"0", []
                continue
            for number, (name, at, text) in enumerate(given, 1):
                reported[name] = at
                pieces.append(text)
                if number < len(given) or cursor == b"0":
                    found[name], pieces = b"".join(pieces), []
                    left.remove(name)
        gone = found.pop(GONE_SERIES, b"")
        reported.pop(GONE_SERIES, None)
        return RawTotals(version or b"", gone, found, reported)

    def _key(self, upstream: str, series: str) -> str:
        keys = self._state.keys
        return keys.totals(upstream, series) if series else keys.gone(upstream)


async def _repeated(read: Callable[[], Awaitable[RawTotals]]) -> RawTotals:
    for _ in range(_TRIES - 1):
        with suppress(_TotalsChanged):
            return await read()
    return await read()


def pairs_of(raw: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Give the names and values of the fields that a script gave."""
    texts = []
    at = 0
    while at < len(raw):
        start = at + _LENGTH
        at = start + int.from_bytes(raw[at:start], "big")
        texts.append(raw[start:at])
    return zip(texts[::2], texts[1::2], strict=True)
