"""The records that the processes of an app share: what this process knows of them, and writes.

The version of a record is chosen by who writes it, above all that it knows; the highest holds.
What cannot be written, because the store is lost, is held, and offered when it is back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from secrets import token_hex
from typing import Any, Final, NamedTuple

from fastapi_proxy_di.cluster.aging import has_ended, is_old
from fastapi_proxy_di.cluster.keys import Keys, parsed_id
from fastapi_proxy_di.cluster.scripts import ENDS, FORGET, PIECE, WRITE
from fastapi_proxy_di.cluster.signing import NewerFormat, Signer
from fastapi_proxy_di.cluster.store import Store, StoreLost

__all__ = ["Body", "SharedState"]

Body = Mapping[str, Any]

_Callback = Callable[[str, Body], object]

_OFFERED: Final = frozenset({"drain", "weight", "ejection"})
"""Kinds of records that every process gives to a store that has lost them."""

_MOST: Final = 20000
"""Records of one upstream that a process keeps; further ones are ignored."""

_TRIES: Final = 5

_AT_ONCE: Final = 100
"""Records that are written, or removed, by one command."""

_NO_ENTRY: Final = "0-0"
"""An id before all entries."""

_logger = logging.getLogger("fastapi_proxy_di.cluster")


class _Known(NamedTuple):
    version: int
    body: Body


class SharedState:
    """What this process knows of the records that the processes of an app share.

    Args:
        store: The store.
        signer: Signs and checks the records.
        cluster: Name of the app in the store.
        process: Name of this process.

    Attributes:
        cluster: Name of the app in the store.
        process: Name of this process.
        keys: The keys of the app.
        epoch: What the store had as its epoch at the last whole read; another one there means
            that it was emptied, or is another store.
        applied: Id of the last entry of the stream that was taken.
        alive: Number of processes that beat, this one included.
        ignored: Records that were ignored, because they were not signed, too long or newer.
    """

    def __init__(self, store: Store, signer: Signer, cluster: str, process: str) -> None:
        self.cluster: Final = cluster
        self.process: Final = process
        self.keys: Final = Keys(cluster)
        self.epoch: bytes = b""
        self.applied: str = "0-0"
        self.alive: int = 1
        self.ignored: int = 0
        self._store: Final = store
        self._signer: Final = signer
        self._offset = time.time() - time.monotonic()
        self._known: dict[str, dict[str, _Known]] = {}
        self._floors: dict[tuple[str, str], int] = {}
        self._callbacks: dict[tuple[str, str], tuple[_Callback, ...]] = {}
        self._uses: dict[str, Callable[[str], bool]] = {}
        self._logged: set[str] = set()
        # What is being written, because each write has a connection and may be overtaken.
        self._latest: dict[tuple[str, str], Body] = {}

    def now(self) -> int:
        """Give the store's time in milliseconds, by this machine's clock until the first beat."""
        return round((time.monotonic() + self._offset) * 1000)

    def set_time(self, milliseconds: int, at: float) -> None:
        """Take the store's time at a monotonic second."""
        self._offset = milliseconds / 1000 - at

    def hide(self, text: str) -> str:
        """Give a digest of ``text`` in hexadecimal digits, the same in all processes."""
        return self._signer.hide(text.encode())

    def seal(self, subject: tuple[str, ...], body: Body) -> bytes:
        """Sign what is no record of an upstream's state."""
        return self._signer.sign(subject, dict(body))

    def open(self, subject: tuple[str, ...], text: bytes) -> Body | None:
        """Give what was sealed, ``None`` if no process of the app has sealed it for ``subject``."""
        try:
            body = self._signer.read(subject, text)
        except (ValueError, TypeError, KeyError):  # also a newer format
            body = None
        if body is None:
            self.ignore("it is not signed with the key of this app", subject[1])
        return body

    @property
    def upstreams(self) -> tuple[str, ...]:
        """Names of the upstreams whose records are read."""
        return tuple(self._known)

    def held(self, upstream: str, kind: str) -> dict[str, Body]:
        """Give the newest records of a kind, by subject."""
        start = f"{kind}:"
        return {
            field.removeprefix(start): known.body
            for field, known in self._known.get(upstream, {}).items()
            if field.startswith(start)
        }

    def record(self, upstream: str, field: str) -> Body | None:
        """Give the newest record of a field."""
        known = self._known.get(upstream, {}).get(field)
        return None if known is None else known.body

    def add(self, upstream: str, uses: Callable[[str], bool] | None = None) -> None:
        """Read the records of an upstream from now on.

        Args:
            upstream: Name of the upstream.
            uses: Tells whether this process has an address; drains and weights of addresses that
                no process has are forgotten after a month.
        """
        self._known.setdefault(upstream, {})
        if uses is not None:
            self._uses[upstream] = uses

    def remove(self, upstream: str) -> None:
        """Forget the records of an upstream."""
        self._uses.pop(upstream, None)
        self._known.pop(upstream, None)
        for about in [one for one in self._floors if one[0] == upstream]:
            del self._floors[about]

    def subscribe(self, upstream: str, kind: str, callback: _Callback) -> Callable[[], None]:
        """Call ``callback`` with the subject and the body of each newer record of others.

        Records that are known already are given at once.

        Args:
            upstream: Name of the upstream.
            kind: Kind of the records.
            callback: Called in the event loop; must not block.

        Returns:
            A function that ends the subscription.
        """
        self.add(upstream)
        key = (upstream, kind)
        self._callbacks[key] = (*self._callbacks.get(key, ()), callback)
        for subject, body in self.held(upstream, kind).items():
            callback(subject, body)

        def unsubscribe() -> None:
            left = tuple(one for one in self._callbacks.pop(key, ()) if one is not callback)
            if left:
                self._callbacks[key] = left

        return unsubscribe

    def sign(self, upstream: str, field: str, body: Body) -> tuple[int, bytes]:
        """Give the next version of a record and the signed record; writes and keeps nothing."""
        version = 1 + max(
            self._version(upstream, field),
            self._floors.get((upstream, field), 0),
            self.now(),
        )
        return version, self._signed(upstream, field, version, body)

    def learn(self, upstream: str, field: str, version: int, body: Body | None) -> None:
        """Take that a script has written a record, or has found this version of one.

        Args:
            upstream: Name of the upstream.
            field: Field of the record.
            version: Its version in the store.
            body: What this process has written, ``None`` if another one has.
        """
        if body is None:
            # The record itself is still to come, so it must be newer than what is known.
            self._floors[upstream, field] = max(version, self._floors.get((upstream, field), 0))
        elif version > self._version(upstream, field):
            self._known.setdefault(upstream, {})[field] = _Known(version, body)

    def write(
        self, upstream: str, kind: str, subject: str, body: Body
    ) -> Coroutine[Any, Any, str | None]:
        """Write a record above all versions; it holds in this process at once.

        Returns:
            What writes it, and gives the id of its entry; ``0-0`` if a later change of this
            process to the same record has taken its place. ``None`` if the store is lost: the
            record is held, and offered when the store is back.
        """
        field = f"{kind}:{subject}"
        version, record = self.sign(upstream, field, body)
        self.learn(upstream, field, version, body)
        self._latest[upstream, field] = body
        return self._write(upstream, field, version, record, body)

    async def _write(
        self, upstream: str, field: str, version: int, record: bytes, body: Body
    ) -> str | None:
        try:
            for _ in range(_TRIES):
                ((entry, newer),) = await self._put(upstream, (field, version, record, b""))
                if entry:
                    return entry
                if self._latest.get((upstream, field)) is not body:
                    return _NO_ENTRY
                self.learn(upstream, field, newer, None)
                version, record = self.sign(upstream, field, body)
                self.learn(upstream, field, version, body)
                self._deliver(upstream, field, body)  # the other one may have been applied
        except StoreLost:
            pass
        finally:
            if self._latest.get((upstream, field)) is body:
                del self._latest[upstream, field]
        return None

    async def read(self) -> None:
        """Read all records and the last id; then offer what is newer here.

        Raises:
            StoreLost: The store cannot be reached.
        """
        keys = self.keys
        epoch, end = await self._store.run(ENDS, (keys.epoch, keys.stream), token_hex(8))
        read = [(upstream, *await self._read(upstream)) for upstream in self.upstreams]
        last = end.decode()
        # The changes may have been followed meanwhile, further than to this end.
        if epoch != self.epoch or parsed_id(last) > parsed_id(self.applied):
            self.applied = last
        self.epoch = epoch
        for upstream, there, forged in read:
            await self._forget(upstream, there)
            await self._offer(upstream, there, forged)
            await self._keep(upstream)

    async def _read(self, upstream: str) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """Read the records of an upstream in pieces; give all records, and the unsigned ones."""
        there: dict[bytes, bytes] = {}
        forged: dict[bytes, bytes] = {}
        cursor = b"0"
        while True:
            cursor, flat = await self._store.run(PIECE, (self.keys.state(upstream),), cursor)
            for name, value in zip(flat[::2], flat[1::2], strict=True):
                there[name] = value
                version, _, record = value.partition(b"|")
                if not self.take(upstream, name, version, record):
                    forged[name] = value
            if cursor == b"0":
                return there, forged

    async def _forget(self, upstream: str, there: Mapping[bytes, bytes]) -> None:
        """Remove what has ended or was kept for long enough, here and in the store."""
        records, now = self._known.get(upstream, {}), self.now()
        ended = [field for field, known in records.items() if has_ended(field, *known, now)]
        pairs: list[bytes] = []
        for field in ended:
            del records[field]
            self._floors.pop((upstream, field), None)
            name = field.encode()
            if name in there:
                pairs += (name, there[name])
        for start in range(0, len(pairs), 2 * _AT_ONCE):
            some = pairs[start : start + 2 * _AT_ONCE]
            await self._store.run(FORGET, (self.keys.state(upstream),), *some)

    async def _keep(self, upstream: str) -> None:
        """Write the drains and weights anew that are old and needed here."""
        uses, now = self._uses.get(upstream), self.now()
        for field, known in tuple(self._known.get(upstream, {}).items()):
            kind, _, subject = field.partition(":")
            if uses is not None and is_old(field, *known, now) and uses(subject):
                await self.write(upstream, kind, subject, known.body)

    async def _offer(
        self, upstream: str, there: Mapping[bytes, bytes], forged: Mapping[bytes, bytes]
    ) -> None:
        """Write what is newer here."""
        records: list[tuple[str, int, bytes, bytes]] = []
        for field, known in tuple(self._known.get(upstream, {}).items()):
            if field.partition(":")[0] not in _OFFERED or known.body.get("until", 1e300) < (
                self.now()
            ):
                continue
            name = field.encode()
            junk = forged.get(name)
            value = there.get(name)
            if junk is None and value is not None and _number(value) >= known.version:
                continue
            record = self._signed(upstream, field, known.version, known.body)
            records.append((field, known.version, record, junk or b""))
            if len(records) == _AT_ONCE:
                await self._put(upstream, *records)
                records.clear()
        if records:
            await self._put(upstream, *records)

    def take(self, upstream: str, name: bytes, number: bytes, record: bytes) -> bool:
        """Take a record of the store.

        Args:
            upstream: Name of the upstream.
            name: Field of the record.
            number: Its version.
            record: The signed record.

        Returns:
            Whether it is signed with the key of the app; also if it is not newer.
        """
        known = self._known.get(upstream)
        if known is None:
            return True
        try:
            field, version = name.decode(), int(number[:20])
            body = self._signer.read((upstream, field, str(version)), record)
        except NewerFormat:
            self.ignore("a later version of the package has written it", upstream)
            return True
        except (ValueError, TypeError, KeyError):
            body = None
        if body is None:
            self.ignore("it is not signed with the key of this app", upstream)
            return False
        if version > self._version(upstream, field):
            if field not in known and len(known) >= _MOST:
                self.ignore(f"there are more than {_MOST}", upstream)
                return True
            known[field] = _Known(version, body)
            self._deliver(upstream, field, body)
        return True

    def _deliver(self, upstream: str, field: str, body: Body) -> None:
        kind, _, subject = field.partition(":")
        for callback in self._callbacks.get((upstream, kind), ()):
            try:
                callback(subject, body)
            except Exception:
                _logger.exception(
                    "%s: a record of another process could not be applied",
                    upstream,
                    extra={"upstream": upstream},
                )

    async def _put(
        self, upstream: str, *records: tuple[str, int, bytes, bytes]
    ) -> list[tuple[str, int]]:
        """Give of each record the id of its entry, or the version that is there and not lower."""
        done = await self._store.run(
            WRITE,
            (self.keys.state(upstream), self.keys.stream),
            *(upstream, *(part for record in records for part in record)),
        )
        return [(entry.decode(), int(newer or 0)) for entry, newer in done]

    def _signed(self, upstream: str, field: str, version: int, body: Body) -> bytes:
        return self._signer.sign((upstream, field, str(version)), dict(body))

    def _version(self, upstream: str, field: str) -> int:
        known = self._known.get(upstream, {}).get(field)
        return 0 if known is None else known.version

    def ignore(self, why: str, upstream: str, number: int = 1) -> None:
        """Count records that are ignored; each reason is logged once."""
        self.ignored += number
        if why not in self._logged:
            self._logged.add(why)
            _logger.warning(
                "%s: a record of the store is ignored, because %s; this is logged once",
                upstream,
                why,
                extra={"upstream": upstream},
            )


def _number(value: bytes) -> int:
    try:
        return int(value.partition(b"|")[0][:20])
    except ValueError:
        return -1
