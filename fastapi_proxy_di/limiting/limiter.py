"""What counts requests per key, and the counting in the memory of this process.

Keys are hidden: what is kept is a digest that only a process with the secret can make.
"""

from __future__ import annotations

import secrets
import time
from asyncio import Future
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final, Protocol

from fastapi_proxy_di.limiting.memory import Memory
from fastapi_proxy_di.limiting.rates import Rate
from fastapi_proxy_di.limiting.window import Standing

__all__ = ["CountsRequests", "Limit", "Limiter", "LimitsUnavailable", "LocalLimiter"]


class LimitsUnavailable(Exception):
    """The store is lost, and ``cluster.on_store_lost`` is ``refuse``."""


class CountsRequests:
    """What limits requests; by this class a start finds it in an app."""


class Limit:
    """What is counted for each key.

    Args:
        name: Name of the limit; limits with the same name and rate share their counts.
        rates: The rates.

    Attributes:
        rates: The rates.
    """

    __slots__ = ("_counted", "rates")

    def __init__(self, name: str, rates: Iterable[Rate]) -> None:
        self.rates: Final = tuple(rates)
        self._counted: Final = [f"{name}\0{rate.text}\0".encode() for rate in self.rates]

    def counted(self, key: str | None) -> list[bytes]:
        """Give for each rate what says what is counted together, before it is hidden.

        Args:
            key: Whose requests are counted together, ``None`` for those without a key.
        """
        # A key may be text that is no UTF-8, such as a header value read leniently.
        end = b"" if key is None else b"=" + key.encode("utf-8", "surrogatepass")
        return [one + end for one in self._counted]


class Limiter(Protocol):
    """Counts requests per key."""

    def take(
        self, limit: Limit, key: str | None, cost: int
    ) -> Sequence[Standing] | Future[Sequence[Standing]]:
        """Take ``cost`` from all rates, or from none if one of them refuses it.

        Args:
            limit: What is counted.
            key: Whose requests are counted together, ``None`` for those without a key.
            cost: How much.

        Returns:
            How the key stands with each rate, at once or, if another program has to be asked,
            later. It raises `LimitsUnavailable` if nothing can be counted.
        """
        ...

    async def aclose(self) -> None:
        """Close what it holds; it counts nothing afterwards."""
        ...


class LocalLimiter:
    """Counts in the memory of this process."""

    def __init__(self) -> None:
        self._hash: Final = blake2b(key=secrets.token_bytes(32), digest_size=16)
        self._memory: Final = Memory()

    def take(self, limit: Limit, key: str | None, cost: int) -> Sequence[Standing]:
        """Take ``cost`` from all rates, or from none, as `Limiter` says."""
        now = time.monotonic_ns() // 1000
        hidden = [self.hide(one) for one in limit.counted(key)]
        if len(hidden) == 1:
            return (self._memory.take_one(hidden[0], limit.rates[0], cost, now),)
        return self._memory.take(hidden, limit.rates, cost, now)

    async def aclose(self) -> None:
        """Do nothing: there is only memory."""

    def hide(self, counted: bytes) -> bytes:
        """Give a digest that only this object can make, 16 bytes."""
        digest = self._hash.copy()
        digest.update(counted)
        return digest.digest()
