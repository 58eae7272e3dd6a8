"""Shares ``max_requests`` of an upstream: processes take blocks of what the window has left.

A window begins and ends by the store's clock. A block is used up without asking the store, and the
next one is fetched in the background, when half of it is used. What a process has not used at the
end of a window is lost, so all processes together are never over the limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from fastapi_proxy_di.cluster.state import SharedState
from fastapi_proxy_di.cluster.store import Script, Store, StoreLost
from fastapi_proxy_di.supervision.supervisor import Supervisor

__all__ = ["BLOCK", "SharedRequests"]

BLOCK: Final = Script(
    """
local time = redis.call('TIME')
local now, length = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[3])
local window, known = math.floor(now / length), tonumber(redis.call('HGET', KEYS[1], 'window'))
if known and window < known and known - window < 2 then window = known end
if window ~= known then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'window', string.format('%.0f', window))
end
local own = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0)
if tonumber(ARGV[4]) == window then own = math.max(own, tonumber(ARGV[5])) end
own = own + tonumber(ARGV[6])
local taken, all = own, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i] ~= 'window' and all[i] ~= ARGV[1] then taken = taken + tonumber(all[i + 1]) end
end
local left = math.max(0, tonumber(ARGV[2]) - taken)
local block = math.min(left, math.max(math.floor(left / 16), tonumber(ARGV[7])))
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', own + block))
redis.call('PEXPIRE', KEYS[1], 2 * length)
return {window, block, own + block, (window + 1) * length - now - 1}
"""
)
"""Takes a block. Arguments: the process, the limit, the length of a window in milliseconds, the
window that the process knows, what it had in that, what it admitted while the store was lost, and
how much it needs at once. Gives the window, the block, what the process has had in the window, and
the whole milliseconds until the window ends. A store that was emptied learns from the processes
again what they have had."""


class SharedRequests:
    """The requests per window of one upstream, in all processes together.

    Args:
        store: The store.
        state: Knows the processes.
        supervisor: Knows the length of a window, and counts the requests of this process.
        own: Runs what fetches a block to its end.
        refuse: Whether nothing is admitted while the store is lost.
    """

    def __init__(
        self,
        store: Store,
        state: SharedState,
        supervisor: Supervisor,
        own: Callable[..., asyncio.Task[None]],
        *,
        refuse: bool,
    ) -> None:
        self._store: Final = store
        self._state: Final = state
        self._supervisor: Final = supervisor
        self._own: Final = own
        self._refuse: Final = refuse
        self._loop: Final = asyncio.get_running_loop()
        self._fetching: asyncio.Task[None] | None = None
        self._waiting = 0
        self._length = 0
        self._window = -1
        self._ends_at = 0.0
        self._had = 0  # in the window
        self._left = 0  # of the block
        self._next_at = 0  # what is left when the next block is fetched
        self._full_at = 0  # the lowest limit that had nothing left in the window
        self._alone = 0  # admitted while the store was lost

    def full(self, limit: int) -> bool:
        """Whether no request may be admitted now."""
        self._turn()
        if self._left:
            return False
        if self._store.contact.lost:
            share = max(1, limit // self._state.alive)
            return self._refuse or self._supervisor.requests_in_window >= share
        return limit <= self._full_at

    @property
    def seconds_left(self) -> float:
        """Seconds until there may be room again."""
        if self._store.contact.lost:
            return 1.0 if self._refuse else self._supervisor.window_left
        return max(0.0, self._ends_at - self._loop.time())

    def take(self, limit: int) -> bool:
        """Take one request, if this process has any; else fetch a block in the background."""
        if self.full(limit):
            return False
        if self._left:
            self._left -= 1
            if self._left <= self._next_at and not self._store.contact.lost:
                self._fetch(limit)
            return True
        if self._store.contact.lost:
            self._alone += 1
            return True
        self._fetch(limit)
        return False

    async def fetched(self) -> None:
        """Wait until the block that is being fetched is there, or the store is lost."""
        if self._fetching is not None:
            self._waiting += 1
            try:
                await asyncio.wait((self._fetching,))
            finally:
                self._waiting -= 1

    def _turn(self) -> None:
        """Forget the block of a window that has ended."""
        length = max(1, round(self._supervisor.window * 1000))
        if self._loop.time() >= self._ends_at or length != self._length:
            self._length = length
            self._left = self._had = self._full_at = 0
            self._window, self._ends_at = -1, float("inf")

    def _fetch(self, limit: int) -> None:
        if self._fetching is None and limit > self._full_at:
            name = f"requests of {self._supervisor.pool.name}"
            self._fetching = self._own(self._fetch_block(limit), name)

    async def _fetch_block(self, limit: int) -> None:
        length, sent_at = self._length, self._loop.time()
        alone = min(self._alone, self._supervisor.requests_in_window)
        try:
            window, block, had, milliseconds = await self._store.run(
                BLOCK,
                [self._state.keys.requests(self._supervisor.pool.name, length)],
                *(self._state.process, limit, length, self._window, self._had, alone),
                max(1, self._waiting),
            )
        except StoreLost:
            return
        finally:
            self._fetching = None
        self._alone = 0
        self._turn()
        if length != self._length:
            return
        if window != self._window:
            self._left = self._full_at = 0
        self._window, self._had = window, had
        # The store has looked at its clock after `sent_at`, so the window ends no earlier.
        self._ends_at = sent_at + milliseconds / 1000
        self._left += block
        self._next_at = block // 2
        if not block:
            self._full_at = max(limit, self._full_at)
