"""A source whose lists a test gives, for the scheme ``plug``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from fastapi_proxy_di.discovery.protocol import DiscoveryError, Search
from fastapi_proxy_di.settings import DestinationSettings
from fastapi_proxy_di.wire.source_address import SourceAddress

__all__ = ["ScriptedSources"]


class ScriptedSources:
    """The sources ``plug://<name>``, each with what it finds now.

    Attributes:
        searches: The search of each source that was called, by name.
        looks: How often each source has looked, by name.

    Args:
        monkeypatch: Makes the scheme ``plug`` known.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.searches: dict[str, Search] = {}
        self.looks: dict[str, int] = {}
        self._found: dict[str, list[DestinationSettings] | str] = {}
        self._changed: dict[str, asyncio.Event] = {}
        place = "fastapi_proxy_di.settings.source_schemes.BUILT_IN"
        monkeypatch.setattr(place, ("dns", "srv", "file", "plug"))
        monkeypatch.setattr("fastapi_proxy_di.discovery.discovery.source_of", self._source_of)

    def find(self, name: str, *found: str | DestinationSettings) -> None:
        """Let a source find destinations."""
        self._set(name, [_settings(one) for one in found])

    def fail(self, name: str, reason: str) -> None:
        """Let a source fail."""
        self._set(name, reason)

    def _set(self, name: str, found: list[DestinationSettings] | str) -> None:
        self._found[name] = found
        self._changed.setdefault(name, asyncio.Event()).set()

    def _source_of(self, address: SourceAddress) -> ScriptedSources:
        if address.host == "broken":
            raise ValueError("destinations: the plug-in is broken")
        return self

    async def __call__(self, search: Search, /) -> AsyncIterator[Sequence[DestinationSettings]]:
        """Give what a source finds, each time that changes, or a dial fails."""
        name = search.address.host
        self.searches[name] = search
        changed = self._changed.setdefault(name, asyncio.Event())
        while name not in self._found:
            await changed.wait()
        while True:
            changed.clear()
            self.looks[name] = self.looks.get(name, 0) + 1
            found = self._found[name]
            if isinstance(found, str):
                raise DiscoveryError(found, retry_after=0.05)
            yield found
            pause = asyncio.ensure_future(search.pause(30))
            wake = asyncio.ensure_future(changed.wait())
            try:
                await asyncio.wait({pause, wake}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                pause.cancel()
                wake.cancel()


def _settings(one: str | DestinationSettings) -> DestinationSettings:
    return DestinationSettings(url=one) if isinstance(one, str) else one
