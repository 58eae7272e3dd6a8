"""What counts requests per key, and the counting in the memory of this process.

Keys are hidden: what is kept is a digest that only a process with the secret can make.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Sequence
from typing import Final, Protocol

from fastapi_proxy_di.limiting.memory import Memory
from fastapi_proxy_di.limiting.rates import Rate
from fastapi_proxy_di.limiting.window import Standing

__all__ = ["CountsRequests", "Limiter", "LimitsUnavailable", "LocalLimiter", "counted"]


class LimitsUnavailable(Exception):
    """The store is lost, and ``cluster.on_store_lost`` is ``refuse``."""


class CountsRequests:
    """What limits requests; by this class a start finds it in an app."""


class Limiter(Protocol):
    """Counts requests per key."""

    async def take(
        self, name: str, key: str | None, rates: Sequence[Rate], cost: int
    ) -> Sequence[Standing]:
        """Take ``cost`` from all rates, or from none if one of them refuses it.

        Args:
            name: Name of the limit; limits with the same name and rate share their counts.
            key: Whose requests are counted together, ``None`` for those without a key.
            rates: The rates.
            cost: How much.

        Raises:
            LimitsUnavailable: Nothing can be counted.
        """
        ...

    async def aclose(self) -> None:
        """Close what it holds; it counts nothing afterwards."""
        ...


class LocalLimiter:
    """Counts in the memory of this process."""

    def __init__(self) -> None:
        self._secret: Final = secrets.token_bytes(32)
        self._memory: Final = Memory()

    async def take(
        self, name: str, key: str | None, rates: Sequence[Rate], cost: int
    ) -> Sequence[Standing]:
        """Take ``cost`` from all rates, or from none, as `Limiter` says."""
        now = time.monotonic_ns() // 1000
        if len(rates) == 1:
            (rate,) = rates
            return (self._memory.take_one(self.hide(counted(name, key, rate)), rate, cost, now),)
        hidden = [self.hide(counted(name, key, rate)) for rate in rates]
        return self._memory.take(hidden, rates, cost, now)

    async def aclose(self) -> None:
        """Do nothing: there is only memory."""

    def hide(self, text: str) -> str:
        """Give a digest of ``text`` that only this object can make, 16 bytes."""
        return hmac.digest(self._secret, text.encode(), "sha256")[:16].hex()


def counted(name: str, key: str | None, rate: Rate) -> str:
    """Give the text that says what is counted together, before it is hidden."""
    return f"{name}\0{rate.text}\0" + ("" if key is None else f"={key}")
