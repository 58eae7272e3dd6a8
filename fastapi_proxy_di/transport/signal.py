"""Wakes tasks that wait for a change.

A `Signal` says only that something changed; the woken tasks read the new state themselves.
"""

from __future__ import annotations

import asyncio

__all__ = ["Signal", "wake"]


class Signal:
    """Wakes all waiting tasks when ``notify`` is called; later waiters wait for the next call."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait for the next ``notify``."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)

    def notify(self) -> None:
        """Wake all tasks that wait now."""
        for waiter in self._waiters:
            wake(waiter)


def wake(waiter: asyncio.Future[None] | None) -> None:
    """Wake the task that waits for a future; does nothing for ``None`` or a done future."""
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
