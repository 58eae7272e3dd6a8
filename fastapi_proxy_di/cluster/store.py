"""Runs scripts in the store, each within ``cluster.timeout``, and none while the store is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextvars import Context
from hashlib import sha1
from typing import Any, Final

from redis.exceptions import NoScriptError

from fastapi_proxy_di.cluster.connecting import Client

__all__ = ["Contact", "Script", "Store", "StoreLost"]

_logger = logging.getLogger("fastapi_proxy_di.cluster")

_AT_ONCE: Final = 32
"""Commands of one client at the same time; further ones wait, within their timeout."""

_CLOSE_SECONDS: Final = 1.0
_LATE_SECONDS: Final = 0.01
"""How late a timer must be for the event loop to count as having been busy."""

_EXTENSIONS: Final = 3
"""How often a command gets its time anew, because the event loop was busy."""


class StoreLost(Exception):
    """The store cannot be reached, or does not do what it is asked."""


class Script:
    """A script in Lua.

    Args:
        text: Its text.
    """

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text: Final = text
        self.digest: Final = sha1(text.encode(), usedforsecurity=False).hexdigest()


class Contact:
    """Whether the store can be reached; one for all clients of an app.

    The first command that fails marks the store as lost. All commands under way then end at once,
    and further ones fail without being sent, until a command that looks for the store succeeds.

    Args:
        changed: Called with the reason when the store is lost, and with ``""`` when it is back.
    """

    def __init__(self, changed: Callable[[str], object]) -> None:
        self.lost: bool = False
        self.under_way: Final[set[asyncio.Timeout]] = set()
        self._changed: Final = changed

    def failed(self, reason: str) -> None:
        """Mark the store as lost, and end the commands under way."""
        if self.lost:
            return
        self.lost = True
        for limit in self.under_way:
            if not limit.expired():
                limit.reschedule(0)
        self._changed(reason)

    def found(self) -> None:
        """Mark the store as reachable."""
        if self.lost:
            self.lost = False
            self._changed("")


class Store:
    """Runs scripts in the store.

    Args:
        client: The client, which this object closes.
        contact: Whether the store can be reached.
        timeout: Seconds that a command may take, its wait for a connection included.
    """

    def __init__(self, client: Client, contact: Contact, timeout: float) -> None:
        self.contact: Final = contact
        self._client: Final = client
        self._timeout: Final = timeout
        self._room: Final = asyncio.Semaphore(_AT_ONCE)

    async def run(
        self, script: Script, keys: Sequence[str], *arguments: Any, looking: bool = False
    ) -> Any:
        """Run a script.

        Args:
            script: The script.
            keys: Its keys.
            arguments: Its arguments.
            looking: Whether to send it even if the store is lost; if it succeeds, the store is
                back.

        Raises:
            StoreLost: It failed, or took too long, or the store is lost.
        """
        contact = self.contact
        if contact.lost and not looking:
            raise StoreLost("the store is lost")
        limit = asyncio.timeout(None)
        try:
            async with limit:
                contact.under_way.add(limit)
                watch = _Watch(limit, self._timeout)
                try:
                    async with self._room:
                        result = await self._send(script, keys, arguments)
                finally:
                    watch.cancel()
                    contact.under_way.discard(limit)
        except TimeoutError as error:
            reason = f"no response within {self._timeout:g} s"
            contact.failed(reason)
            raise StoreLost(reason) from error
        except Exception as error:  # not all errors of redis-py are a `RedisError`
            reason = type(error).__name__  # its text may have a key or a value in it
            contact.failed(reason)
            raise StoreLost(reason) from error
        if looking:
            contact.found()
        return result

    async def aclose(self) -> None:
        """Close all connections, within a second; those of a store that is lost too."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._client.aclose()
        except Exception as error:  # noqa: BLE001  # the process ends, and the store closes them
            _logger.debug("closing the connections to the store failed: %s", type(error).__name__)

    async def _send(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        try:
            return await self._client.execute_command(
                "EVALSHA", script.digest, len(keys), *keys, *arguments
            )
        except NoScriptError:  # the store has restarted, or has never seen it
            return await self._client.execute_command(
                "EVAL", script.text, len(keys), *keys, *arguments
            )


class _Watch:
    """Ends a command that takes too long.

    Time in which the event loop was busy with something else does not count: the response may be
    there already, and has not been read.

    Args:
        limit: The timeout of the command, which has been entered.
        seconds: How long the command may take.
    """

    __slots__ = ("_due", "_left", "_limit", "_loop", "_seconds", "_timer")

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._limit: Final = limit
        self._seconds: Final = seconds
        self._loop: Final = asyncio.get_running_loop()
        self._left = _EXTENSIONS
        self._start()

    def cancel(self) -> None:
        """Stop watching."""
        self._timer.cancel()

    def _start(self) -> None:
        self._due = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due, self._check, context=Context())

    def _check(self) -> None:
        if self._left and self._loop.time() - self._due > _LATE_SECONDS:
            self._left -= 1
            self._start()
        elif not self._limit.expired():
            self._limit.reschedule(0)
