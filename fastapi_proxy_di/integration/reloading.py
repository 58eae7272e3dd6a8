"""Reads all settings of a running app anew, and puts them in force: all of them, or none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from fastapi_proxy_di.observability.telemetry import Telemetry
from fastapi_proxy_di.settings import (
    Mention,
    ProxySettings,
    TelemetrySettings,
    UpstreamSettings,
    overridden_fields,
    read_all,
    read_proxy_settings,
    settings_class,
    settings_error,
    settings_files,
)
from fastapi_proxy_di.upstream.reloading import prepared_reload
from fastapi_proxy_di.upstream.running import RunningUpstream

__all__ = ["FIXED_OF_APP", "Reloader"]

_logger = logging.getLogger("fastapi_proxy_di.reload")

FIXED_OF_APP: Final[Mapping[str, str]] = {
    "request_id": "it puts a wrapper around the middlewares of the app, when the app starts",
    "reload": "it decides what the app watches, when the app starts",
    "cluster": "it decides which store the app opens, when the app starts",
}
"""The settings of an app that change nothing about a running one, each with the reason."""


class Reloader:
    """Reads the settings of one running app anew.

    Args:
        mentions: The name, settings class or instance of each upstream, by name. An instance is
            code, and stays as it is.
        given: The settings of the app that code gave; ``None`` if they are read.
        settings: The settings of the app.
        telemetry_of: Makes the telemetry of the app.
        running: Gives the running upstreams.

    Attributes:
        telemetry: The telemetry of the app, if it has changed since the start.
    """

    def __init__(
        self,
        mentions: Mapping[str, Mention],
        given: ProxySettings | None,
        settings: ProxySettings,
        telemetry_of: Callable[[TelemetrySettings], Telemetry],
        running: Callable[[], Sequence[RunningUpstream]],
    ) -> None:
        self._mentions: Final = mentions
        self._given: Final = given
        self._settings = settings
        self._telemetry_of: Final = telemetry_of
        self._running: Final = running
        self._lock: Final = asyncio.Lock()
        self.telemetry: Telemetry | None = None

    async def reload(self) -> dict[str, tuple[str, ...]]:
        """Read the settings, and put them in force; with a fault anywhere nothing changes.

        Returns:
            By name of the upstream, the fields that have changed.

        Raises:
            SettingsError: Every fault of every upstream, and of the settings of the app. They are
                logged as well.
        """
        async with self._lock:
            # In a thread, because reading takes tens of milliseconds for each upstream.
            read = await asyncio.to_thread(self._read)
            upstreams = self._running()
            wanted = {one: read.upstreams.get(one.name, one.settings) for one in upstreams}
            telemetry: Telemetry | None = None
            if read.settings.telemetry != self._settings.telemetry:
                telemetry = self._telemetry_of(read.settings.telemetry)
            async with prepared_reload(wanted, telemetry) as prepared:
                faults = [*read.faults, *prepared.faults]
                if faults:
                    error = settings_error(faults)
                    _logger.error("nothing is reloaded. %s", error)
                    prepared.failed(faults)
                    raise error
                changed = prepared.apply(read.overridden)
            self._settings = read.settings
            self.telemetry = telemetry or self.telemetry
            return changed

    def files(self) -> tuple[Path, ...]:
        """Give the files and directories that the settings come from, certificates too."""
        classes = [type(self._settings)] if self._given is None else []
        found = [path for cls in (*classes, *self._classes()) for path in settings_files(cls)]
        for upstream in self._running():
            tls = upstream.settings.tls
            found += filter(None, (tls.ca_file, tls.client_cert, tls.client_key))
        return tuple(dict.fromkeys(found))

    def _classes(self) -> list[type[UpstreamSettings]]:
        return [
            settings_class(one) if isinstance(one, str) else one
            for one in self._mentions.values()
            if not isinstance(one, UpstreamSettings)
        ]

    def _read(self) -> _Read:
        upstreams, faults = read_all(self._mentions)
        settings = self._given
        if settings is None:
            settings, more = read_proxy_settings()
            faults += more
        overridden = {
            cls.name: overridden_fields(cls) for cls in self._classes() if cls.name in upstreams
        }
        return _Read(upstreams, settings or self._settings, faults, overridden)


class _Read(NamedTuple):
    """What was read: the valid settings, and the faults of the others."""

    upstreams: dict[str, UpstreamSettings]
    settings: ProxySettings
    faults: list[str]
    overridden: dict[str, dict[str, str]]
