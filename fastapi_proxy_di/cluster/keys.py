"""The names of all keys of an app in the store, and the ids of its stream. Pure.

All begin with the name of the app in braces, so a Redis Cluster has them in one slot, and a user of
the store needs rights on ``{name}:*`` alone.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Keys", "parsed_id"]


class Keys:
    """The keys of an app.

    Args:
        cluster: Name of the app in the store.

    Attributes:
        epoch: A random text; another one there means that the store was emptied or replaced.
        stream: The changes of records.
        members: The processes, by the time of their last beat.
    """

    def __init__(self, cluster: str) -> None:
        self._prefix: Final = f"{{{cluster}}}:"
        self.epoch: Final = f"{self._prefix}epoch"
        self.stream: Final = f"{self._prefix}stream"
        self.members: Final = f"{self._prefix}members"

    def state(self, upstream: str) -> str:
        """Give the key of the records of an upstream."""
        return f"{self._prefix}state:{upstream}"

    def beat(self, process: str) -> str:
        """Give the key of the beat of a process."""
        return f"{self._prefix}beat:{process}"

    def series(self, upstream: str) -> str:
        """Give the key of the names of all series of totals, by the time of their last report."""
        return f"{self._prefix}series:{upstream}"

    def totals(self, upstream: str, series: str) -> str:
        """Give the key of the totals of one series: what one process has counted."""
        return f"{self._prefix}totals:{upstream}:{series}"

    def gone(self, upstream: str) -> str:
        """Give the key of the sum of all series that have ended."""
        return f"{self._prefix}gone:{upstream}"

    def next_gone(self, upstream: str, process: str) -> str:
        """Give the key of a new such sum, which a process writes in parts."""
        return f"{self._prefix}next:{upstream}:{process}"

    def lease(self, upstream: str, shard: int) -> str:
        """Give the key of the lease to probe a part of an upstream."""
        return f"{self._prefix}lease:{upstream}:{shard}"

    def suspect(self, upstream: str, shard: int) -> str:
        """Give the key of the process that gave this lease away, as it did not trust its probes."""
        return f"{self.lease(upstream, shard)}:suspect"

    def votes(self, upstream: str) -> str:
        """Give the key of the votes on the destinations of an upstream, by process."""
        return f"{self._prefix}votes:{upstream}"

    def traffic(self, upstream: str, digest: str) -> str:
        """Give the key of the processes that sent requests to a destination."""
        return f"{self._prefix}traffic:{upstream}:{digest}"

    def requests(self, upstream: str, milliseconds: int) -> str:
        """Give the key of the requests of an upstream within a window of that length."""
        return f"{self._prefix}requests:{upstream}:{milliseconds}"

    def limit(self, digest: str) -> str:
        """Give the key of what was taken from a limit by whom the digest stands for."""
        return f"{self._prefix}limit:{digest}"


def parsed_id(entry: str | bytes) -> tuple[int, int]:
    """Give the id of an entry as numbers, which can be compared."""
    text = entry.decode() if isinstance(entry, bytes) else entry
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number or 0)
