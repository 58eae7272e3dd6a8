"""Pairs of a destination and a key that cool: the destination has refused requests with the key.

A key is, for example, an API key that is over its quota. Only the pair cools: other requests
still go to the destination, and requests with the key to others. The file has no clock and no
I/O; keys are digests, and the values that clients send are never kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["CooledPairs"]

_NONE: Final[Mapping[str, float]] = MappingProxyType({})


class CooledPairs:
    """The cooled pairs of one upstream.

    Args:
        most: How many pairs are kept; of more, the one that cooled longest ago is dropped.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most: Final = most
        self._until: Final[OrderedDict[tuple[bytes, str], float]] = OrderedDict()
        self._urls: Final[dict[bytes, set[str]]] = {}

    def __len__(self) -> int:
        return len(self._until)

    def cool(self, url: str, key: bytes, until: float) -> None:
        """Let a pair cool.

        Args:
            url: Address of the destination.
            key: Digest of the key.
            until: Monotonic seconds at which it ends; a later end that is known stays.
        """
        pair = (key, url)
        self._until[pair] = max(until, self._until.get(pair, until))
        self._until.move_to_end(pair)
        self._urls.setdefault(key, set()).add(url)
        if len(self._until) > self._most:
            self._drop(*next(iter(self._until)))

    def left(self, key: bytes, now: float) -> Mapping[str, float]:
        """Give the addresses at which a key cools, and the seconds that are left at ``now``."""
        urls = self._urls.get(key)
        if urls is None:
            return _NONE
        left = {url: self._until[key, url] - now for url in urls}
        for url, seconds in left.items():
            if seconds <= 0:
                self._drop(key, url)
        return {url: seconds for url, seconds in left.items() if seconds > 0}

    def _drop(self, key: bytes, url: str) -> None:
        del self._until[key, url]
        urls = self._urls[key]
        urls.remove(url)
        if not urls:
            del self._urls[key]
