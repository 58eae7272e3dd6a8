"""Splits long work into pieces, between which the event loop serves requests."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

__all__ = ["Pieces"]

PIECE_SECONDS: Final = 0.002


class Pieces:
    """The pieces of work that would hold up the event loop if it were done in one go."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends = perf_counter() + PIECE_SECONDS

    async def pause(self) -> None:
        """Give way to other tasks if the current piece has lasted long enough."""
        if perf_counter() >= self._ends:
            await asyncio.sleep(0)
            self._ends = perf_counter() + PIECE_SECONDS
