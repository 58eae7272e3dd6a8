"""The destinations of one upstream: those of the settings, and those that its sources find."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any, Final, Protocol

from fastapi_proxy_di.discovery.entry_points import source_of
from fastapi_proxy_di.discovery.merging import Merged, configured, merge
from fastapi_proxy_di.discovery.protocol import Search
from fastapi_proxy_di.discovery.searcher import Searcher
from fastapi_proxy_di.settings import DestinationSettings, UpstreamSettings
from fastapi_proxy_di.supervision.events import Events

__all__ = ["Discovery", "NothingFound"]

_Own = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]


class _Apply(Protocol):
    def __call__(self, settings: Sequence[DestinationSettings], *, starting: bool) -> None: ...


_logger = logging.getLogger("fastapi_proxy_di.discovery")

START_SECONDS: Final = 10.0
"""How long a start, or a change of the sources, waits for the first destinations of a source."""


class NothingFound(ValueError):
    """A source that is required found no destination at start."""


class Discovery:
    """Finds the destinations of one upstream and gives the list of all to the pool.

    Attributes:
        entries: The destinations of the settings, sources included, as they are now.

    Args:
        settings: The settings of the upstream.
        events: Emits changes, failures and recoveries.
        random: Source of the jitter of pauses.

    Raises:
        ValueError: A source cannot be loaded; the text begins with ``destinations``.
    """

    def __init__(self, settings: UpstreamSettings, events: Events, random: Random) -> None:
        self.entries: tuple[DestinationSettings, ...] = settings.given_destinations
        self._settings = settings
        self._events: Final = events
        self._random: Final = random
        self._searchers: dict[str, Searcher] = self._made(self.entries, {})
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._awaited: set[Searcher] = set(self._searchers.values())
        self._all_answered = asyncio.Event()
        self._starting = True
        self._required = settings.discovery.required
        self._changes: dict[str, dict[str, Any]] = {}
        self._merged = Merged(settings.destination_settings, {}, ())
        self._told: set[tuple[str, str]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def searchers(self) -> tuple[Searcher, ...]:
        """The searches for the destinations of each source, in the order of the settings."""
        return tuple(self._searchers.values())

    def attach(self, own: _Own, apply: _Apply) -> None:
        """Take what the upstream does for its discovery.

        Args:
            own: Runs a coroutine as a task that ends with the upstream.
            apply: Makes a list the destinations of the pool, ``starting`` or not; raises
                ``ValueError`` if they cannot be used.
        """
        self._own = own
        self._apply = apply

    async def start(self, *, required: bool = True) -> None:
        """Ask all sources at once, and wait for what each finds first.

        Args:
            required: Whether the setting ``discovery.required`` applies.

        Raises:
            NothingFound: A source found nothing in time, and is required.
        """
        self._required = required and self._settings.discovery.required
        self._run()
        if self._awaited:
            try:
                async with asyncio.timeout(START_SECONDS):
                    await self._all_answered.wait()
            except TimeoutError:
                self._awaited.clear()
        if self._required:
            self._refuse_missing()
        self._refresh()
        self._starting = False

    def replace(self, entries: Sequence[DestinationSettings]) -> None:
        """Replace destinations and sources; a source that stays keeps what it has found.

        Until new sources have answered, but at most `START_SECONDS`, the destinations stay.

        Raises:
            ValueError: A source cannot be loaded, or a destination cannot be used.
        """
        searchers = self._made(entries, self._searchers)
        before = (self.entries, self._searchers, self._awaited)
        self.entries, self._searchers = tuple(entries), searchers
        self._awaited = {one for one in searchers.values() if not one.answered}
        self._set_templates()
        try:
            self._refresh()
        except ValueError:
            self.entries, self._searchers, self._awaited = before
            self._set_templates()
            raise
        self._run()
        if self._awaited:
            self._stop_timer()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(START_SECONDS, self._wait_no_longer)

    def check(self, entries: Sequence[DestinationSettings]) -> None:
        """Load the sources among ``entries``, and ask none of them.

        Raises:
            ValueError: A source cannot be loaded; the text begins with ``destinations``.
        """
        _ = self._made(entries, self._searchers)

    def reload(self, settings: UpstreamSettings, *, replaced: bool) -> None:
        """Go by other settings; if those of discovery differ, all sources are asked anew.

        Args:
            settings: The settings, whose sources ``check`` has loaded.
            replaced: Whether the destinations of the settings differ from those before.
        """
        before, self._settings = self._settings, settings
        anew = settings.discovery != before.discovery or settings.timeouts != before.timeouts
        if anew and self._searchers:
            for task in self._tasks.values():
                task.cancel()
            self._tasks, self._searchers = {}, {}
        elif not replaced:
            return
        self.replace(settings.given_destinations if replaced else self.entries)

    def configure(self, url: str, changes: Mapping[str, Any]) -> None:
        """Change fields of a destination.

        The changes of a destination that a source found hold until the source no longer finds
        the address.

        Args:
            url: The address of a destination of the pool.
            changes: Fields of ``DestinationSettings``.

        Raises:
            ValueError: A value is not valid.
        """
        if url in self._merged.found_by:
            found = next(one for one in self._merged.destinations if one.url == url)
            _ = configured(found, changes)  # raises what is not valid
            self._changes[url] = {**self._changes.get(url, {}), **changes}
            self._refresh()
        else:
            self.replace(
                [configured(one, changes) if one.url == url else one for one in self.entries]
            )

    def dial_failed(self, url: str) -> None:
        """Ask the source of a destination again, because a connection to it failed."""
        source = self._merged.found_by.get(url)
        if source is not None and source in self._searchers:
            self._searchers[source].search.hurry()

    def close(self) -> None:
        """Stop the timer; the tasks belong to the upstream."""
        self._stop_timer()

    def _made(
        self, entries: Sequence[DestinationSettings], known: Mapping[str, Searcher]
    ) -> dict[str, Searcher]:
        settings, timeouts = self._settings, self._settings.timeouts
        timeout = timeouts.connect if timeouts.resolve is None else timeouts.resolve
        made: dict[str, Searcher] = {}
        for entry in entries:
            if entry.source is None:
                continue
            made[entry.url] = known.get(entry.url) or Searcher(
                settings.name,
                Search(entry, settings.discovery, timeout, self._random),
                source_of(entry.source),
                random=self._random,
                events=self._events,
                changed=self._changed,
            )
        return made

    def _set_templates(self) -> None:
        for entry in self.entries:
            searcher = self._searchers.get(entry.url)
            if searcher is not None and searcher.search.template != entry:
                searcher.set_template(entry)

    def _run(self) -> None:
        """Run a task for each source; stop those of sources that are gone."""
        for url, searcher in self._searchers.items():
            if url not in self._tasks:
                name = f"discovery of {self._settings.name}: {searcher.search.address.shown}"
                self._tasks[url] = self._own(searcher.run(), name)
        for url in self._tasks.keys() - self._searchers.keys():
            self._tasks.pop(url).cancel()

    def _changed(self, searcher: Searcher) -> None:
        if self._searchers.get(searcher.search.template.url) is not searcher:
            return  # it was removed, and its task is about to end
        if searcher.destinations or not (self._starting and self._required):
            self._awaited.discard(searcher)
        if self._starting:
            if not self._awaited:
                self._all_answered.set()
            return
        self._refresh()

    def _refresh(self) -> None:
        """Give the list of all destinations to the pool, unless a new source is being asked."""
        if self._awaited:
            return
        self._stop_timer()
        found = {url: one.destinations for url, one in self._searchers.items()}
        merged = merge(self.entries, found)
        self._changes = {
            url: fields for url, fields in self._changes.items() if url in merged.found_by
        }
        if self._changes:
            destinations = tuple(
                [
                    configured(one, self._changes[one.url]) if one.url in self._changes else one
                    for one in merged.destinations
                ]
            )
            merged = merged._replace(destinations=destinations)
        if merged.destinations != self._merged.destinations:
            self._apply(merged.destinations, starting=self._starting)
        self._merged = merged
        self._tell(merged.doubles)

    def _refuse_missing(self) -> None:
        missing = [
            f"{one.search.address.shown} has no destination after {START_SECONDS:g} s"
            f" ({one.holding.reason or 'it has not answered'})"
            for one in self._searchers.values()
            if not one.destinations
        ]
        if missing:
            raise NothingFound(
                f"destinations: {', and '.join(missing)}; set discovery.required=false to start"
                " without"
            )

    def _tell(self, doubles: Sequence[tuple[str, str]]) -> None:
        """Log once that two sources find the same address."""
        for double in doubles:
            if double not in self._told:
                self._told.add(double)
                left_out, taken = (
                    self._searchers[url].search.address.shown if url in self._searchers else url
                    for url in double
                )
                _logger.info(
                    "%s: %s finds addresses that %s has as well; the settings of the latter hold",
                    self._settings.name,
                    left_out,
                    taken,
                    extra={"upstream": self._settings.name},
                )

    def _wait_no_longer(self) -> None:
        self._timer = None
        self._awaited.clear()
        try:
            self._refresh()
        except ValueError as error:
            _logger.error(  # noqa: TRY400  # its text names the destination and the fault
                "%s: the new destinations cannot be used: %s",
                self._settings.name,
                error,
                extra={"upstream": self._settings.name},
            )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
