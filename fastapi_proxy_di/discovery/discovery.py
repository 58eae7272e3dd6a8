"""Collects the destinations of one upstream, from its settings and from its sources."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
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
    def __call__(
        self,
        settings: Sequence[DestinationSettings],
        *,
        found: Collection[str],
        starting: bool,
    ) -> None: ...


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
        # With the timers that end the waiting, but at start, which has a timeout of its own.
        self._awaited: dict[Searcher, asyncio.TimerHandle | None] = dict.fromkeys(
            self._searchers.values()
        )
        self._all_found = asyncio.Event()
        self._starting = True
        self._required = settings.discovery.required
        self._changes: dict[str, dict[str, Any]] = {}
        self._weights: dict[str, float] = {}
        self._merged = Merged(settings.destination_settings, {}, ())
        self._told: set[tuple[str, str]] = set()

    @property
    def searchers(self) -> tuple[Searcher, ...]:
        """The searches for the destinations of each source, in the order of the settings."""
        return tuple(self._searchers.values())

    def attach(self, own: _Own, apply: _Apply) -> None:
        """Take what the upstream does for its discovery.

        Args:
            own: Runs a coroutine as a task that ends with the upstream.
            apply: Makes a list the destinations of the pool, with the addresses of those that
                sources ``found``, ``starting`` or not; raises ``ValueError`` if they cannot be
                used.
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
                    await self._all_found.wait()
            except TimeoutError:
                self._awaited.clear()
        if self._required:
            self._refuse_missing()
        self._refresh()
        self._starting = False

    def replace(self, entries: Sequence[DestinationSettings]) -> None:
        """Replace destinations and sources; a source that stays keeps what it has found.

        Until new sources have found destinations, but at most `START_SECONDS`, all destinations
        stay as they are.

        Raises:
            ValueError: A source cannot be loaded, or a destination cannot be used.
        """
        self._replace(entries, self._made(entries, self._searchers))

    def _replace(
        self, entries: Sequence[DestinationSettings], searchers: dict[str, Searcher]
    ) -> None:
        before = (self.entries, self._searchers, self._awaited)
        known, here = set(self._searchers.values()), set(searchers.values())
        new = [one for one in searchers.values() if one not in known and not one.destinations]
        self.entries, self._searchers = tuple(entries), searchers
        self._awaited = {one: timer for one, timer in self._awaited.items() if one in here}
        self._awaited.update(dict.fromkeys(new))
        self._set_templates()
        try:
            self._refresh()
        except ValueError:
            self.entries, self._searchers, self._awaited = before
            self._set_templates()
            raise
        for one in before[2].keys() - self._awaited.keys():
            _stop(before[2][one])
        self._run()
        loop = asyncio.get_running_loop()
        for one in new:
            self._awaited[one] = loop.call_later(START_SECONDS, self._wait_no_longer, one)

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
        entries = settings.given_destinations if replaced else self.entries
        anew = settings.discovery != before.discovery or _timeout(settings) != _timeout(before)
        if anew and self._searchers:
            for task in self._tasks.values():
                task.cancel()
            self._tasks = {}
            searchers = self._made(entries, {})
            for url, searcher in searchers.items():
                former = self._searchers.get(url)
                if former is not None:
                    searcher.keep(former)
            self._replace(entries, searchers)
        elif replaced:
            self.replace(entries)

    def configure(self, url: str, changes: Mapping[str, Any]) -> None:
        """Change fields of a destination.

        The changes of a destination that a source found are kept until the source no longer finds
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

    def weigh(self, url: str, weight: float) -> None:
        """Give an address a weight that holds whatever its settings or sources say.

        Raises:
            ValueError: The weight is not valid.
        """
        self._weights[url] = weight
        if not self._starting:
            self._refresh()

    def dial_failed(self, url: str) -> None:
        """Ask the source of a destination again, because a connection to it failed."""
        source = self._merged.found_by.get(url)
        if source is not None and source in self._searchers:
            self._searchers[source].search.hurry()

    def close(self) -> None:
        """Stop the timers; the tasks belong to the upstream."""
        for timer in self._awaited.values():
            _stop(timer)

    def _made(
        self, entries: Sequence[DestinationSettings], known: Mapping[str, Searcher]
    ) -> dict[str, Searcher]:
        settings = self._settings
        made: dict[str, Searcher] = {}
        for entry in entries:
            if entry.source is None:
                continue
            made[entry.url] = known.get(entry.url) or Searcher(
                settings.name,
                Search(entry, settings.discovery, _timeout(settings), self._random),
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
        # While the app runs, a failure of a new source must not cost the destinations.
        if searcher.destinations or (self._starting and not self._required):
            _stop(self._awaited.pop(searcher, None))
        if self._starting:
            if not self._awaited:
                self._all_found.set()
            return
        self._refresh()

    def _refresh(self) -> None:
        """Give the list of all destinations to the pool, unless a new source is being asked."""
        if self._awaited:
            return
        found = {url: one.destinations for url, one in self._searchers.items()}
        merged = merge(self.entries, found)
        self._changes = {
            url: fields for url, fields in self._changes.items() if url in merged.found_by
        }
        if self._changes or self._weights:
            destinations = tuple(map(self._configured, merged.destinations))
            merged = merged._replace(destinations=destinations)
        if merged.destinations != self._merged.destinations:
            self._apply(merged.destinations, found=merged.found_by, starting=self._starting)
        self._merged = merged
        self._tell(merged.doubles)

    def _configured(self, one: DestinationSettings) -> DestinationSettings:
        changes = self._changes.get(one.url, {})
        if one.url in self._weights:
            changes = {**changes, "weight": self._weights[one.url]}
        return configured(one, changes) if changes else one

    def _refuse_missing(self) -> None:
        missing = [
            f"{one.search.address.shown} has no destination after {START_SECONDS:g} s"
            f" ({one.holding.reason or 'it has found nothing yet'})"
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
                    "%s: %s finds addresses that %s has as well; they get the settings of %s",
                    self._settings.name,
                    left_out,
                    taken,
                    taken,
                    extra={"upstream": self._settings.name},
                )

    def _wait_no_longer(self, searcher: Searcher) -> None:
        """Go on without the destinations of a new source."""
        del self._awaited[searcher]
        searcher.publish()


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _timeout(settings: UpstreamSettings) -> float:
    """Give the seconds that a look-up may take."""
    timeouts = settings.timeouts
    return timeouts.connect if timeouts.resolve is None else timeouts.resolve
