"""The processes of an app: each beats once a second, and so learns what the store has.

The beat is also the one command that is sent while the store is lost, to look for it. Its record is
smaller than 1 kB, and stays for an hour, so that a process that went missing can be named.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import version
from secrets import token_hex
from time import monotonic
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from fastapi_proxy_di.cluster.keys import parsed_id
from fastapi_proxy_di.cluster.scripts import ALIVE_MS, BEAT, BEATS, LEAVE, MEMBERS
from fastapi_proxy_di.cluster.signing import NewerFormat, Signer
from fastapi_proxy_di.cluster.state import SharedState
from fastapi_proxy_di.cluster.store import Store, StoreLost

__all__ = ["Applied", "Member", "Members", "UpstreamCounts", "process_name"]

_logger = logging.getLogger("fastapi_proxy_di.cluster")

BEAT_SECONDS: Final = 1.0
_QUIET_SECONDS: Final = 0.1
"""The shortest time between two beats."""

_LOOK_SECONDS: Final = 0.05
_VERSION: Final = version("fastapi-proxy-di")
_MISSING: Final = 100
"""Processes that went missing which are named: a machine that starts one again and again makes
thousands in an hour."""

_MOST: Final = 5000
_BEATS_AT_ONCE: Final = 30
_BODY_BYTES: Final = 900
"""The longest record of a beat without its signature."""


class UpstreamCounts(NamedTuple):
    """The counts of an upstream that a process sends with each beat.

    Attributes:
        destinations: Number of its destinations.
        available: How many of them are available.
        in_flight: Number of requests under way.
    """

    destinations: int
    available: int
    in_flight: int


class Member(NamedTuple):
    """A process of the app, by its last beat.

    Attributes:
        process: Its name.
        alive: Whether it beats.
        age: Seconds since its last beat.
        applied: Id of the last entry of the stream that it has taken.
        version: Version of the package, ``""`` if the beat has none.
        upstreams: The counts of its upstreams, by name; of as many as fit into a beat.
    """

    process: str
    alive: bool
    age: float
    applied: str
    version: str = ""
    upstreams: Mapping[str, UpstreamCounts] = MappingProxyType({})

    @property
    def name(self) -> str:
        """Host and process id."""
        return self.process.rpartition(":")[0]


class Applied(NamedTuple):
    """How many processes have applied a change.

    Attributes:
        applied: Processes that have.
        of: Processes that beat.
        missing: Names of those that have not.
    """

    applied: int
    of: int
    missing: tuple[str, ...]


def process_name() -> str:
    """Give a name for this process: host, process id and a random part."""
    host = re.sub(r"[^A-Za-z0-9._-]", "_", socket.gethostname())[:64]
    return f"{host}:{os.getpid()}:{token_hex(3)}"


class Members:
    """Beats for this process, and reads the beats of others.

    Args:
        store: The store.
        signer: Signs and checks the beats.
        state: The shared records.
        amiss: Called when the records have to be read as a whole.
        counts: Gives the counts of each upstream, for the next beat.
    """

    def __init__(
        self,
        store: Store,
        signer: Signer,
        state: SharedState,
        amiss: Callable[[], object],
        counts: Callable[[], Iterable[tuple[str, UpstreamCounts]]] = tuple,
    ) -> None:
        self._counts: Final = counts
        self._store: Final = store
        self._signer: Final = signer
        self._state: Final = state
        self._amiss: Final = amiss
        self._soon: Final = asyncio.Event()
        self._last = (0, 0)
        self._applied = (0, 0)

    def beat_soon(self) -> None:
        """Beat soon, so that others see what this process has applied."""
        self._soon.set()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self._soon.clear()
            try:
                await self.beat()
            except StoreLost:
                pass
            except Exception:
                # Nothing else looks for a store that is lost, so the beats go on.
                _logger.exception("a beat failed")
            await asyncio.sleep(_QUIET_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS - _QUIET_SECONDS):
                    await self._soon.wait()

    async def beat(self) -> None:
        """Beat once; find out whether records were missed.

        Raises:
            StoreLost: The store cannot be reached.
        """
        state, keys = self._state, self._state.keys
        record = self._signer.sign(("beat", state.process), self._body())
        began = monotonic()
        epoch, first, last, now, alive = await self._store.run(
            BEAT,
            (keys.epoch, keys.stream, keys.members, keys.beat(state.process)),
            *(token_hex(8), state.process, record),
            looking=True,
        )
        state.set_time(now, (began + monotonic()) / 2)
        state.alive = max(1, alive)
        applied, before = parsed_id(state.applied), self._last
        # On a slow link entries may come late, but they come.
        stuck = applied < before and applied == self._applied
        self._last, self._applied = parsed_id(last), applied
        trimmed = applied < parsed_id(first) and applied != (0, 0)
        if state.epoch and (epoch != state.epoch or stuck or trimmed):
            self._last = (0, 0)
            self._amiss()

    async def leave(self) -> None:
        """Tell that this process ends.

        Raises:
            StoreLost: The store cannot be reached.
        """
        keys, process = self._state.keys, self._state.process
        await self._store.run(LEAVE, (keys.members, keys.beat(process)), process)

    async def all(self, missing: int = _MISSING) -> tuple[Member, ...]:
        """Give all processes that beat, and those that went missing within the last hour.

        Args:
            missing: How many of these at most, the last ones.

        Raises:
            StoreLost: The store cannot be reached.
        """
        keys, now = self._state.keys, self._state.now()
        flat = await self._store.run(MEMBERS, (keys.members,), _MOST)
        ages = {
            name.decode(errors="replace"): now - float(at)
            for name, at in zip(flat[::2], flat[1::2], strict=True)
        }
        gone = [name for name, age in ages.items() if not _is_alive(age)]
        for name in gone[: len(gone) - missing]:
            del ages[name]
        found: list[Member | None] = []
        names = list(ages)
        for start in range(0, len(names), _BEATS_AT_ONCE):
            some = names[start : start + _BEATS_AT_ONCE]
            records = await self._store.run(BEATS, [keys.beat(name) for name in some])
            for name, record in zip(some, records, strict=True):
                found.append(self._read(name, record, ages[name]))
        return tuple(filter(None, found))

    async def acknowledged(self, entry: str, seconds: float) -> Applied:
        """Wait until every process that beats has taken an entry, at most ``seconds``.

        Raises:
            StoreLost: The store cannot be reached.
        """
        end, wanted = monotonic() + seconds, parsed_id(entry)
        self.beat_soon()
        while True:
            alive = [one for one in await self.all(missing=0) if one.alive]
            missing = [one for one in alive if parsed_id(one.applied) < wanted]
            if not missing or monotonic() >= end:
                shown = tuple(one.name for one in missing)
                return Applied(len(alive) - len(missing), len(alive), shown)
            await asyncio.sleep(_LOOK_SECONDS)

    def _body(self) -> dict[str, Any]:
        """Give the fields of the record, with the counts of as many upstreams as fit."""
        sent: dict[str, UpstreamCounts] = {}
        body = {"applied": self._state.applied, "version": _VERSION, "upstreams": sent}
        size = len(json.dumps(body))
        for name, counts in self._counts():
            size += len(json.dumps({name: counts}))
            if size > _BODY_BYTES:
                break
            sent[name] = counts
        return body

    def _read(self, process: str, record: bytes | None, age: float) -> Member | None:
        """Give a process; ``None`` if its last beat is not signed."""
        try:
            body = record and self._signer.read(("beat", process), record)
        except NewerFormat:
            return Member(process, _is_alive(age), max(0.0, age / 1000), "0-0")
        except ValueError:
            return None
        if not body:
            return None
        received = body.get("upstreams", {})
        upstreams = {name: UpstreamCounts(*one) for name, one in received.items()}
        seconds = max(0.0, age / 1000)
        return Member(
            process, _is_alive(age), seconds, body["applied"], body.get("version", ""), upstreams
        )


def _is_alive(age: float) -> bool:
    """Whether a process is alive, by the age of its last beat in milliseconds."""
    return abs(age) <= ALIVE_MS
