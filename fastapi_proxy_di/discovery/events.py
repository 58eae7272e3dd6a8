"""The events of discovery: destinations changed, a source failed, a source recovered.

They are on the logger ``fastapi_proxy_di.discovery``, once per change and once per outage.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from fastapi_proxy_di.supervision.events import Event

__all__ = ["DestinationsFound", "DiscoveryFailed", "DiscoveryRecovered"]

_NAMED: Final = 3
"""Addresses that a log record names."""


@dataclass(frozen=True, slots=True)
class DestinationsFound(Event):
    """The list of a source changed.

    Attributes:
        source: The address of the source.
        added: Addresses that are new in the list.
        removed: Addresses that are no longer in the list.
        found: Number of addresses in the list.
    """

    source: str = ""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    found: int = 0
    part: ClassVar[str] = "discovery"
    text: ClassVar[str] = "has a new list of destinations"

    def detail(self) -> str:
        """The source, the counts, and some of the addresses."""
        changes = [*_counted(self.added, "added"), *_counted(self.removed, "removed")]
        return f"{self.source}: {'; '.join([*changes, f'{self.found} in the list'])}"


@dataclass(frozen=True, slots=True)
class DiscoveryFailed(Event):
    """A source began to fail, or to find nothing.

    Attributes:
        source: The address of the source.
        reason: Why, e.g. ``"SERVFAIL"``.
        kept: Number of destinations of its last list, which are used for ``discovery.keep``.
    """

    source: str = ""
    reason: str = ""
    kept: int = 0
    part: ClassVar[str] = "discovery"
    level: ClassVar[int] = logging.WARNING
    text: ClassVar[str] = "cannot find destinations"

    def detail(self) -> str:
        """The source, the reason, and how many destinations of its last list are used."""
        used = (
            f"its last {self.kept} destinations are used for discovery.keep seconds"
            if self.kept
            else "it has no destinations that could be used meanwhile"
        )
        return f"{self.source}: {self.reason}; {used}"


@dataclass(frozen=True, slots=True)
class DiscoveryRecovered(Event):
    """A source finds destinations again.

    Attributes:
        source: The address of the source.
    """

    source: str = ""
    part: ClassVar[str] = "discovery"
    level: ClassVar[int] = logging.WARNING
    text: ClassVar[str] = "finds destinations again"

    def detail(self) -> str:
        """The source."""
        return self.source


def _counted(addresses: Sequence[str], what: str) -> list[str]:
    if not addresses:
        return []
    named = ", ".join(addresses[:_NAMED]) + (", ..." if len(addresses) > _NAMED else "")
    return [f"{len(addresses)} {what}: {named}"]
