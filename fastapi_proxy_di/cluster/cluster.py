"""What one app shares with its other processes: started before its upstreams, closed after them.

Nothing of it is on the path of a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import Any, Final

from redis.exceptions import RedisError

from fastapi_proxy_di.cluster.connecting import connect
from fastapi_proxy_di.cluster.members import Members, process_name
from fastapi_proxy_di.cluster.reader import Reader
from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.cluster.state import SharedState
from fastapi_proxy_di.cluster.store import Contact, Store
from fastapi_proxy_di.cluster.store import StoreLost as Lost
from fastapi_proxy_di.settings.cluster import ClusterSettings
from fastapi_proxy_di.supervision.events import Events, StoreBack, StoreLost

__all__ = ["Cluster"]

_START_SECONDS: Final = 1.0
"""How long a start tries to reach the store; then it goes on without."""

_START_PAUSE_SECONDS: Final = 0.05
_CLOSE_SECONDS: Final = 1.0

_logger = logging.getLogger("fastapi_proxy_di.cluster")


class Cluster:
    """The store of an app, and what its processes share there.

    Args:
        settings: The settings, with a store.
        events: Emits `StoreLost` and `StoreBack`, for each upstream.

    Attributes:
        signer: Signs and checks what is written.
        store: Runs scripts in the store.
        state: The records that the processes share.
        members: The processes.
    """

    def __init__(self, settings: ClusterSettings, events: Events) -> None:
        assert settings.store is not None
        assert settings.name is not None
        assert settings.key is not None
        address, timeout = settings.store.get_secret_value(), settings.timeout
        self._events: Final = events
        self._contact: Final = Contact(self._changed)
        self.signer: Final = Signer(settings.key.get_secret_value().encode(), settings.name)
        # Without a read timeout of its own: `Store` limits each command.
        client = connect(address, timeout=timeout, read_timeout=None)
        self.store: Final = Store(client, self._contact, timeout)
        self.state: Final = SharedState(self.store, self.signer, settings.name, process_name())
        self._reader: Final = Reader(
            self.state,
            lambda: connect(address, timeout=timeout, read_timeout=None),
            self._applied,
        )
        self.members: Final = Members(self.store, self.signer, self.state, self._reader.restart)
        self._tasks: Final[set[asyncio.Task[Any]]] = set()
        self._started = False
        self._reason = ""

    async def start(self) -> None:
        """Read the records, if the store can be reached; then follow and beat."""
        end = monotonic() + _START_SECONDS
        while True:
            try:
                await self.members.beat()
                await self.state.read()
                break
            except Lost:
                if monotonic() >= end:
                    break
                await asyncio.sleep(_START_PAUSE_SECONDS)
        self._started = True
        if self._contact.lost:
            self._tell(self._reason)
        _ = self.own(self._reader.run(), "reader of the cluster")
        _ = self.own(self.members.run(), "beats of the cluster")

    async def read(self) -> None:
        """Read all records now, for an upstream that was added; not if the store is lost."""
        with suppress(Lost):
            await self.state.read()

    def own(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run ``coroutine`` as a task that is cancelled when the cluster is closed."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """End the tasks, tell the others, and close all connections."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(Lost):
            await self.members.leave()
        self._started = False
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.store.aclose()

    def _applied(self) -> None:
        self.members.hurry()

    def _changed(self, reason: str) -> None:
        self._reason = reason
        if self._started:
            self._tell(reason)
            if not reason:
                self._reader.restart()

    def _tell(self, reason: str) -> None:
        if reason:
            _logger.warning(
                "the store is lost (%s); each process goes on with what it knows", reason
            )
        else:
            _logger.warning("the store is back")
        for upstream in self.state.upstreams:
            self._events.emit(StoreLost(upstream, reason=reason) if reason else StoreBack(upstream))
