"""What shared probes and votes need of the records that the processes of an app share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Records"]


class Records(Protocol):
    """The shared records, as far as this process knows them."""

    @property
    def cluster(self) -> str:
        """Name of the app in the store."""

    @property
    def process(self) -> str:
        """Name of this process."""

    @property
    def alive(self) -> int:
        """Number of processes that beat, this one included."""

    @property
    def epoch(self) -> bytes:
        """What the store has as its epoch; another one if it was emptied."""

    def now(self) -> int:
        """Give the store's time in milliseconds."""

    def hide(self, text: str) -> str:
        """Give a digest of ``text`` in hexadecimal digits, the same in all processes."""

    def seal(self, subject: tuple[str, ...], body: Mapping[str, Any]) -> bytes:
        """Sign what is no record of an upstream's state."""

    def open(self, subject: tuple[str, ...], text: bytes) -> Mapping[str, Any] | None:
        """Give what was sealed, ``None`` if no process of the app has sealed it for ``subject``."""

    def held(self, upstream: str, kind: str) -> Mapping[str, Mapping[str, Any]]:
        """Give the newest records of a kind, by subject."""

    def sign(self, upstream: str, field: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
        """Give the next version of a record and the signed record; writes and keeps nothing."""

    def learn(
        self, upstream: str, field: str, version: int, body: Mapping[str, Any] | None
    ) -> None:
        """Take that a script has written a record, or has found this version of one.

        Args:
            upstream: Name of the upstream.
            field: Field of the record.
            version: Its version in the store.
            body: What this process has written, ``None`` if another one has.
        """

    async def write(
        self, upstream: str, kind: str, subject: str, body: Mapping[str, Any]
    ) -> str | None:
        """Write a record; give the id of its entry, ``None`` while the store is lost."""
