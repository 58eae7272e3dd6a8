"""What a source of destinations is: the protocol of plug-ins, which built-in sources have too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Final, Protocol

from fastapi_proxy_di.discovery.pace import SHORTEST_SECONDS, USUAL_SECONDS, refresh_seconds
from fastapi_proxy_di.settings import DestinationSettings, DiscoverySettings
from fastapi_proxy_di.wire.source_address import SourceAddress

__all__ = ["DiscoveryError", "DiscoverySource", "Search"]


class DiscoveryError(Exception):
    """A source cannot give its destinations; the text is logged, so it must contain no secret.

    Attributes:
        retry_after: Seconds until the source is called again, ``None`` for 1, 2, 4 and so on up
            to 30.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after: float | None = retry_after


class Search:
    """What a source is asked for, and the time until it is to be asked again.

    Attributes:
        address: The address of the source, parsed.
        template: The destination of the settings that has this address; its other fields are
            those of every destination found.
        settings: The settings of discovery.
        timeout: Seconds that one look-up may take.
        ttl: The TTL of the last list in seconds, as given to the last ``pause``; ``None`` before.

    Args:
        template: The destination of the settings that is a source.
        settings: The settings of discovery.
        timeout: Seconds that one look-up may take.
        random: Source of the jitter of pauses.
    """

    def __init__(
        self,
        template: DestinationSettings,
        settings: DiscoverySettings,
        timeout: float,
        random: Random,
    ) -> None:
        assert template.source is not None  # callers pass sources only
        self.address: Final[SourceAddress] = template.source
        self.template: DestinationSettings = template
        self.settings: DiscoverySettings = settings
        self.timeout: float = timeout
        self.ttl: float | None = None
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._hurried = False
        self._over = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._looked_at = self._loop.time()

    async def pause(self, seconds: float = USUAL_SECONDS) -> None:
        """Wait until it is time to look again.

        The pause ends early when a dial to a found address fails, but not within a second of
        the end of the last pause.

        Args:
            seconds: The TTL of the last list, e.g. that of a record; kept within 1 to 30 seconds.
                ``discovery.refresh`` is taken instead if it is set.
        """
        self.ttl = seconds
        await self.wait(refresh_seconds(self.settings.refresh, seconds, self._random.random()))

    async def wait(self, seconds: float) -> None:
        """Wait ``seconds``, or less if a dial to a found address fails."""
        over = self._over = asyncio.Event()
        self._timer = self._loop.call_later(seconds, over.set)
        if self._hurried:
            self.hurry()
        try:
            await over.wait()
        finally:
            if self._over is over:  # else a source pauses twice at the same time
                self._timer.cancel()
                self._timer = None
        self._hurried = False
        self._looked_at = self._loop.time()

    def hurry(self) -> None:
        """End the current pause, or the next one, early."""
        self._hurried = True
        if self._timer is not None:
            earliest = min(self._timer.when(), self._looked_at + SHORTEST_SECONDS)
            self._timer.cancel()
            self._timer = self._loop.call_at(earliest, self._over.set)


class DiscoverySource(Protocol):
    """Finds the destinations of an upstream; implemented by users.

    A source is a function with ``yield``, and the entry point of a package:

    ```toml
    [project.entry-points."fastapi_proxy_di.discovery"]
    consul = "my_package.consul:find"
    ```

    The name of the entry point is the prefix of the schemes: ``find`` is called for the
    destinations ``consul://...``, ``consul+http://...`` and ``consul+https://...``.
    """

    def __call__(self, search: Search, /) -> AsyncIterator[Sequence[DestinationSettings]]:
        """Give the whole list of destinations each time it may have changed.

        A source that watches yields as often as it wants. A source that ends is called again
        after ``search.pause()``, so the simplest one yields once. An exception means that the
        source failed: the last list is used for ``discovery.keep`` seconds, and the source is
        called again after 1 to 30 seconds. The text of a ``DiscoveryError`` is logged; of other
        exceptions only the type, because their texts may contain secrets.

        Args:
            search: The address, the settings, and ``pause``.

        Yields:
            Destinations, without sources; an empty list if the source has no destinations.
        """
        ...
