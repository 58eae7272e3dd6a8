"""Shared records at their simplest, for tests of what is built on them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi_proxy_di.cluster.connecting import Client
from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.cluster.store import Script, Store

__all__ = ["PlainRecords"]

_STREAM = "{shop}:stream"
_MEMBERS = "{shop}:members"
_BEAT_SECONDS = 0.3

_WRITE = Script(
    """
    local known = redis.call('HGET', KEYS[1], ARGV[2])
    local version = known and string.match(known, '^%d+')
    if version and tonumber(version) >= tonumber(ARGV[3]) then return false end
    redis.call('HSET', KEYS[1], ARGV[2], ARGV[3] .. '|' .. ARGV[4])
    return redis.call('XADD', KEYS[2], '*', 'upstream', ARGV[1], 'field', ARGV[2],
        'version', ARGV[3], 'record', ARGV[4])
    """
)


class PlainRecords:
    """The records of one process: reads the whole state at each beat, and the stream at once."""

    def __init__(self, store: Store, reader: Client, process: str) -> None:
        self.cluster = "shop"
        self.process = process
        self.alive = 1
        self._store = store
        self._reader = reader
        self._signer = Signer(b"k" * 32, self.cluster)
        self._versions: dict[tuple[str, str], int] = {}
        self._calls: dict[tuple[str, str], Callable[[str, Mapping[str, Any] | None], object]] = {}
        self._last: str | bytes = "0"

    def now(self) -> int:
        """Give the time; the store runs on the same machine."""
        return int(time.time() * 1000)

    def hide(self, text: str) -> str:
        """Give a digest."""
        return self._signer.hide(text)

    def sign(self, upstream: str, field: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
        """Give the next version of a record and the signed record."""
        version = max(self._versions.get((upstream, field), 0), self.now()) + 1
        return version, self._signer.sign((upstream, field, str(version)), dict(body))

    def learn(
        self, upstream: str, field: str, version: int, body: Mapping[str, Any] | None
    ) -> None:
        """Keep the version."""
        key = (upstream, field)
        self._versions[key] = max(version, self._versions.get(key, 0))

    async def write(
        self, upstream: str, kind: str, subject: str, body: Mapping[str, Any]
    ) -> str | None:
        """Write a record."""
        field = f"{kind}:{subject}"
        version, record = self.sign(upstream, field, body)
        keys = (f"{{shop}}:state:{upstream}", _STREAM)
        written: bytes | None = await self._store.run(
            _WRITE, keys, upstream, field, version, record
        )
        self.learn(upstream, field, version, body)
        return None if written is None else written.decode()

    def subscribe(
        self,
        upstream: str,
        kind: str,
        callback: Callable[[str, Mapping[str, Any] | None], object],
    ) -> None:
        """Call ``callback`` with each newer record."""
        self._calls[upstream, kind] = callback

    async def read(self) -> None:
        """Beat, and read the whole state."""
        execute = self._reader.execute_command
        await execute("ZADD", _MEMBERS, self.now(), self.process)
        found = await execute("ZRANGEBYSCORE", _MEMBERS, self.now() - 3000, "+inf")
        self.alive = len(found)
        self._store.contact.found()
        for field, kept in (await execute("HGETALL", "{shop}:state:billing")).items():
            version, _, record = kept.partition(b"|")
            self._take("billing", field.decode(), int(version), record)

    async def beats(self) -> None:
        """Beat and read until cancelled."""
        while True:
            try:
                await self.read()
            except Exception as error:
                self._store.contact.failed(type(error).__name__)
            await asyncio.sleep(_BEAT_SECONDS)

    async def reading(self) -> None:
        """Follow the stream until cancelled."""
        while True:
            try:
                found = await self._reader.execute_command(
                    *("XREAD", "BLOCK", 1000, "STREAMS", _STREAM, self._last)
                )
            except Exception:
                await asyncio.sleep(0.1)
                continue
            for _, entries in found or ():
                for self._last, entry in entries:
                    upstream, field = entry[b"upstream"].decode(), entry[b"field"].decode()
                    self._take(upstream, field, int(entry[b"version"]), entry[b"record"])

    def _take(self, upstream: str, field: str, version: int, record: bytes) -> None:
        if self._versions.get((upstream, field), 0) >= version:
            return
        self.learn(upstream, field, version, None)
        body = self._signer.read((upstream, field, str(version)), record)
        kind, _, subject = field.partition(":")
        self._calls[upstream, kind](subject, body)
