"""Asks one source again and again, and keeps its list in use.

``holding`` decides which list is in use, and ``pace`` when to ask again.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from datetime import UTC, datetime
from math import inf
from random import Random
from typing import Any, Final

from fastapi_proxy_di.discovery.events import (
    DestinationsFound,
    DiscoveryFailed,
    DiscoveryRecovered,
)
from fastapi_proxy_di.discovery.holding import Holding
from fastapi_proxy_di.discovery.merging import from_template
from fastapi_proxy_di.discovery.pace import backoff_seconds
from fastapi_proxy_di.discovery.pieces import Pieces
from fastapi_proxy_di.discovery.protocol import DiscoveryError, DiscoverySource, Search
from fastapi_proxy_di.settings import DestinationSettings
from fastapi_proxy_di.supervision.events import Event, Events

__all__ = ["Searcher"]

_logger = logging.getLogger("fastapi_proxy_di.discovery")


class Searcher:
    """The search for the destinations of one source.

    Attributes:
        search: What the source is asked for.
        holding: The list in use, as the source gave it.
        destinations: The same with the fields of the template.
        succeeded_at: When it last gave a list that is not empty.
        failed_at: When it last failed.
        found_at: When the list in use was first found.

    Args:
        upstream: Name of the upstream.
        search: What the source is asked for.
        source: The source.
        random: Source of the jitter of pauses.
        events: Emits changes, failures and recoveries.
        changed: Called after each result of the source, and when its list is dropped; raises
            ``ValueError`` if the destinations cannot be used.
    """

    def __init__(
        self,
        upstream: str,
        search: Search,
        source: DiscoverySource,
        *,
        random: Random,
        events: Events,
        changed: Callable[[Searcher], None],
    ) -> None:
        self.search: Final = search
        self.holding: Final = Holding(search.settings.keep, search.settings.on_empty)
        self.destinations: tuple[DestinationSettings, ...] = ()
        self.succeeded_at: datetime | None = None
        self.failed_at: datetime | None = None
        self.found_at: datetime | None = None
        self._upstream = upstream
        self._source = source
        self._random = random
        self._events = events
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._shown: tuple[DestinationSettings, ...] = ()
        self._with_template: dict[str, tuple[DestinationSettings, DestinationSettings]] = {}
        self._expiry: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Ask the source until the task is cancelled."""
        try:
            while True:
                wait = await self._ask()
                if wait is None:
                    await self.search.pause()
                else:
                    await self.search.wait(wait)
        finally:
            self._await_expiry(stop=True)

    def set_template(self, template: DestinationSettings) -> None:
        """Give the destinations found the fields of another template."""
        self.search.template = template
        self._with_template.clear()
        self._apply_template()

    def keep(self, former: Searcher) -> None:
        """Use the list of a former search for the same source until a list is found."""
        self.holding.destinations = former.holding.destinations
        self._shown = former._shown
        self.succeeded_at, self.found_at = former.succeeded_at, former.found_at
        self._apply_template()

    async def _ask(self) -> float | None:
        """Take lists until the source ends or fails; give the pause, ``None`` for the usual one."""
        try:
            lists: Any = self._source(self.search)
            if not isinstance(lists, AsyncIterable):
                if inspect.iscoroutine(lists):
                    lists.close()
                raise DiscoveryError("it is not an async generator; a source gives lists by yield")
            try:
                async for given in lists:
                    self._take(await self._completed_in_pieces(given))
            finally:
                if isinstance(lists, AsyncGenerator):
                    await lists.aclose()
        except DiscoveryError as error:
            self._failed(str(error))
            if error.retry_after is not None:
                return error.retry_after
        except Exception as error:
            # Its text may hold a secret, such as the address that a plug-in asked.
            _logger.debug("%s: %s failed", self._upstream, self._shown_source, exc_info=True)
            self._failed(type(error).__name__)
        except asyncio.CancelledError as error:
            current = asyncio.current_task()
            if current is None or current.cancelling():
                raise
            # A task or a future of the source itself was cancelled, not the search.
            self._failed(type(error).__name__)
        else:
            return None
        return backoff_seconds(self.holding.failures, self._random.random())

    @property
    def _shown_source(self) -> str:
        return self.search.address.shown

    async def _completed_in_pieces(self, given: Iterable[Any]) -> tuple[DestinationSettings, ...]:
        """Check what a source gave, and give new destinations the fields of the template.

        Of two with one address the first is taken, as in the settings.
        """
        pieces = Pieces()
        distinct: dict[str, DestinationSettings] = {}
        for one in [*given]:
            if not isinstance(one, DestinationSettings):
                raise DiscoveryError(f"it gave {type(one).__name__}, not DestinationSettings")
            if one.source is not None or one.address.app is not None:
                raise DiscoveryError(f"it gave {one.shown}, which only settings may have")
            if distinct.setdefault(one.url, one) is one:
                self._with_template[one.url] = self._completed(one)
            await pieces.pause()
        return tuple(distinct.values())

    def _take(self, found: tuple[DestinationSettings, ...]) -> None:
        before = self.holding.reason
        self.holding.found(found, self._loop.time())
        if self.holding.reason:
            self._after_failure(before)
            return
        self.succeeded_at = datetime.now(UTC)
        self._await_expiry(stop=True)
        self.publish()
        if before:
            self._emit(DiscoveryRecovered(self._upstream, source=self._shown_source))

    def _failed(self, reason: str) -> None:
        before = self.holding.reason
        self.holding.failed(reason, self._loop.time())
        self._after_failure(before)

    def _after_failure(self, before: str) -> None:
        self.failed_at = datetime.now(UTC)
        kept = len(self.holding.destinations)
        if not before:
            reason = self.holding.reason
            self._emit(
                DiscoveryFailed(self._upstream, source=self._shown_source, reason=reason, kept=kept)
            )
        self._await_expiry()
        self.publish()

    def _await_expiry(self, *, stop: bool = False) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        expires = None if stop else self.holding.expires
        if expires is not None:
            self._expiry = self._loop.call_at(expires, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        # The loop's clock may be a millisecond early.
        _ = self.holding.expire(inf)
        self.publish()

    def publish(self) -> None:
        """Give the list in use to the upstream, and emit what has changed."""
        self._apply_template()
        try:
            self._changed(self)
        except ValueError as error:
            _logger.error(  # noqa: TRY400  # its text names the setting and the mend
                "%s: the destinations of %s cannot be used: %s",
                self._upstream,
                self._shown_source,
                error,
                extra={"upstream": self._upstream, "destination": None},
            )
        before, now = self._shown, self.holding.destinations
        if now == before:
            return
        self._shown = now
        self.found_at = datetime.now(UTC)
        old, new = {one.url for one in before}, {one.url for one in now}
        self._emit(
            DestinationsFound(
                self._upstream,
                source=self._shown_source,
                added=tuple([one.url for one in now if one.url not in old]),
                removed=tuple([one.url for one in before if one.url not in new]),
                found=len(now),
            )
        )

    def _apply_template(self) -> None:
        """Complete each destination once: a thousand of them are found anew each second."""
        made = {one.url: self._completed(one) for one in self.holding.destinations}
        self._with_template = made
        self.destinations = tuple([complete for _, complete in made.values()])

    def _completed(
        self, found: DestinationSettings
    ) -> tuple[DestinationSettings, DestinationSettings]:
        """Give a destination as it was found, and with the fields of the template."""
        before = self._with_template.get(found.url)
        if before is not None and before[0] == found:
            return before
        return found, from_template(self.search.template, found)

    def _emit(self, event: Event) -> None:
        self._events.emit(event)
