"""Reads the shared records as a whole, then follows their changes, until something is amiss.

Changes come by ``XREAD BLOCK``, on a client of its own that has no read timeout. Whatever may have
cost an entry (the connection ends, the store is back, emptied or another one, an entry is not read
in time) leads to the same: a new connection and a whole read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from random import Random
from time import monotonic
from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from fastapi_proxy_di.cluster.connecting import Client
from fastapi_proxy_di.cluster.state import SharedState
from fastapi_proxy_di.cluster.store import StoreLost

__all__ = ["Reader"]

_BLOCK_MS: Final = 10000
_ENTRIES: Final = 100
"""Entries that are read at once; between them requests have their turn."""

_WHOLE_SECONDS: Final = 60.0
"""Seconds after which everything is read anyway."""

_AWAITED: Final = frozenset({"drain", "weight"})
"""Kinds of records whose writer waits until all have applied them."""

_PAUSE_SECONDS: Final = 0.05
"""The pause after a connection has ended; it doubles while none lasts."""

_LONGEST_PAUSE_SECONDS: Final = 1.0
_CLOSE_SECONDS: Final = 1.0

_logger = logging.getLogger("fastapi_proxy_di.cluster")


class Reader:
    """Follows the changes of the shared records.

    Args:
        state: The records.
        client_of: Makes a client without a read timeout.
        took: Called when what others may wait for was taken.
    """

    def __init__(
        self,
        state: SharedState,
        client_of: Callable[[], Client],
        took: Callable[[], object],
    ) -> None:
        self._state: Final = state
        self._client_of: Final = client_of
        self._took: Final = took
        self._again: Final = asyncio.Event()
        self._reading = False
        self._denied = ""
        self._random: Final = Random()  # noqa: S311  # jitter
        self._short_lived = 0

    def restart(self) -> None:
        """Make a new connection, and read everything.

        Not while everything is read: that may take longer than the time between two beats. The
        next beat finds what is amiss then.
        """
        if not self._reading:
            self._again.set()

    async def run(self) -> None:
        """Read and follow until cancelled."""
        while True:
            self._again.clear()
            again = asyncio.create_task(self._again.wait(), name="restart of the changes")
            following = asyncio.create_task(self._follow(), name="changes of the cluster")
            try:
                await asyncio.wait({again, following}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                again.cancel()
                following.cancel()
                await asyncio.wait({following})
            if not following.cancelled() and (pause := following.result()):
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._again.wait()

    async def _follow(self) -> float:
        """Read everything, then follow; give the pause until the next try."""
        client, began = self._client_of(), monotonic()
        try:
            while True:
                await self._read()
                self._took()
                await self._follow_for(client, _WHOLE_SECONDS)
        except (RedisConnectionError, RedisTimeoutError, OSError):
            return self._pause(monotonic() - began)
        except StoreLost:
            return _LONGEST_PAUSE_SECONDS  # who finds it restarts the reader
        except RedisError as error:
            self._tell(type(error).__name__)
            return _LONGEST_PAUSE_SECONDS
        except Exception:
            _logger.exception("the changes in the store cannot be followed")
            return _LONGEST_PAUSE_SECONDS
        finally:
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await client.aclose()

    async def _read(self) -> None:
        self._reading = True
        try:
            await self._state.read()
        finally:
            self._reading = False

    def _pause(self, lasted: float) -> float:
        """Give the pause after a connection that lasted so many seconds.

        Each try reads everything, so a store that takes no further connection has few of them.
        """
        self._short_lived = 0 if lasted > _LONGEST_PAUSE_SECONDS else self._short_lived + 1
        longest = min(_PAUSE_SECONDS * (1 << min(self._short_lived, 5)), _LONGEST_PAUSE_SECONDS)
        return longest * (0.75 + 0.5 * self._random.random())

    async def _follow_for(self, client: Client, seconds: float) -> None:
        state, stream = self._state, self._state.keys.stream
        end = monotonic() + seconds
        while monotonic() < end:
            found = await client.execute_command(
                *("XREAD", "COUNT", _ENTRIES, "BLOCK", _BLOCK_MS, "STREAMS", stream, state.applied)
            )
            kinds = set()
            for entry, fields in found[0][1] if found else ():
                kinds.add(self._take(fields))
                state.applied = entry.decode()
            if kinds & _AWAITED:
                self._took()

    def _take(self, fields: dict[bytes, bytes]) -> str:
        upstream = fields.get(b"upstream", b"").decode(errors="replace")
        name = fields.get(b"field", b"")
        self._state.take(upstream, name, fields.get(b"version", b""), fields.get(b"record", b""))
        return name.partition(b":")[0].decode(errors="replace")

    def _tell(self, error: str) -> None:
        if error != self._denied:
            self._denied = error
            _logger.warning(
                "the changes in the store cannot be followed (%s), so they are read once a"
                " second; let the user of cluster.store run XREAD",
                error,
            )
