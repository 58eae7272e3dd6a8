"""What a look-up gives: the records that it found, or that it failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Found", "LookupFailed", "Service"]

_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class Found(Generic[_Record]):
    """The records of a name.

    Attributes:
        records: Sorted, each once. Empty for a name that does not exist or has no such record.
        ttl: Seconds until the name is to be looked up again: the smallest TTL of the records and
            of the aliases (CNAME) that led to them. For no records the TTL of RFC 2308 §5, at
            most 30 seconds.
    """

    records: tuple[_Record, ...]
    ttl: float


@dataclass(frozen=True, slots=True, order=True)
class Service:
    """A SRV record (RFC 2782).

    Attributes:
        priority: Clients use the records with the lowest number first.
        weight: Share of the requests among records of one priority; 0 for very few.
        port: TCP port.
        target: Name of the host in lower case, with a final dot: it is absolute.
    """

    priority: int
    weight: int
    port: int
    target: str


class LookupFailed(Exception):
    """A look-up failed: no server gave records, nor said that the name has no such records.

    The text names the records, the servers and what each server did. No bytes of a response are
    in it, so it may be logged.

    Attributes:
        records: What was looked up, e.g. ``AAAA records of api.internal.``.
        reason: What each server did.
        servfail: Whether the last server that was asked gave SERVFAIL.
    """

    def __init__(self, records: str, reason: str, *, servfail: bool = False) -> None:
        super().__init__(f"cannot look up {records}: {reason}")
        self.records: str = records
        self.reason: str = reason
        self.servfail: bool = servfail
