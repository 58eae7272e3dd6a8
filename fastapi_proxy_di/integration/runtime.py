"""Starts and closes the upstreams of one app together; independent of FastAPI.

Start is all or nothing: if one upstream cannot start, the started ones are closed again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from fastapi_proxy_di.observability.families import Numbers
from fastapi_proxy_di.observability.history import History
from fastapi_proxy_di.observability.telemetry import Telemetry
from fastapi_proxy_di.settings import (
    Mention,
    ProxySettings,
    TelemetrySettings,
    UpstreamSettings,
    describe_late_fault,
    read_all,
    read_proxy_settings,
    settings_class,
    settings_error,
    unknown_variables,
)
from fastapi_proxy_di.supervision.events import Events
from fastapi_proxy_di.upstream.balancer import Balancer
from fastapi_proxy_di.upstream.composition import compose
from fastapi_proxy_di.upstream.running import RunningUpstream

if TYPE_CHECKING:
    from fastapi_proxy_di.integration.shadowed import MountPaths

_logger = logging.getLogger("fastapi_proxy_di.settings")


class Runtime:
    """The running upstreams of one app.

    Attributes:
        balancers: The balancers, by upstream name.
        events: Receives the changes of state of all upstreams.
        history: Keeps the recent events.
        mounts: The mounts of the app when it started, and the routes with paths in them.
        request_id: Whether each request gets an ``X-Request-ID``, once started.
        websockets_checked: Whether the dependencies of proxied WebSockets were checked.
    """

    def __init__(self) -> None:
        self.balancers: dict[str, Balancer] = {}
        self.events: Events = Events()
        self.history: History = History()
        _ = self.events.subscribe(self.history.listen)
        self.mounts: Sequence[MountPaths] = ()
        self.request_id: bool = False
        self.websockets_checked: bool = False
        self._running: list[RunningUpstream] = []

    async def start(
        self,
        mentions: Mapping[str, Mention],
        settings: ProxySettings | None = None,
        telemetry_of: Callable[[TelemetrySettings], Telemetry] = Telemetry,
    ) -> None:
        """Validate, compose and start the upstreams; probe each destination once.

        Args:
            mentions: The name, settings class or instance of each upstream, by name.
            settings: The settings of the app, ``None`` for those of the environment.
            telemetry_of: Makes the telemetry of the app.

        Raises:
            SettingsError: Every fault of every upstream, and of the settings of the app.
        """
        upstreams, faults = read_all(mentions)
        if settings is None:
            settings, more = read_proxy_settings()
            faults += more
        for warning in _unread_variables(mentions, upstreams, settings):
            _logger.warning(warning)
        try:
            telemetry = None if settings is None else telemetry_of(settings.telemetry)
            self._running = compose_all(upstreams, self.events, faults, telemetry)
            if faults or settings is None:
                raise settings_error(faults)
            self.request_id = settings.request_id
            # Wait for all starts, since an upstream that is still starting cannot be closed.
            starts = await asyncio.gather(
                *(upstream.start() for upstream in self._running), return_exceptions=True
            )
            for failure in filter(None, starts):
                raise failure
        except BaseException:
            await self.aclose()
            raise
        self.balancers = {upstream.name: Balancer(upstream) for upstream in self._running}

    def numbers(self) -> list[Numbers]:
        """Give what the metrics of the running upstreams are read from."""
        return [upstream.numbers() for upstream in self._running]

    async def aclose(self) -> None:
        """Close all upstreams; one that fails to close is logged and stops no other."""
        self.history.wake()
        upstreams, self._running = self._running, []
        self.balancers = {}
        results = await asyncio.gather(
            *(upstream.aclose() for upstream in upstreams), return_exceptions=True
        )
        for upstream, result in zip(upstreams, results, strict=True):
            if isinstance(result, Exception):
                name = upstream.name
                _logger.error("%s: closing failed", name, exc_info=result, extra={"upstream": name})


def compose_all(
    settings: Mapping[str, UpstreamSettings],
    events: Events,
    faults: list[str],
    telemetry: Telemetry | None = None,
) -> list[RunningUpstream]:
    """Compose the upstreams whose settings are valid.

    Args:
        settings: The settings, by upstream name.
        events: Receives the changes of state of all upstreams.
        faults: A list that gets the faults found here, so that one error reports all faults.
        telemetry: The telemetry of the app.
    """
    upstreams = []
    for one in settings.values():
        try:
            upstreams.append(compose(one, events=events, telemetry=telemetry))
        except ValueError as error:
            faults.append(describe_late_fault(error, type(one)))
    return upstreams


def _unread_variables(
    mentions: Mapping[str, Mention],
    settings: Mapping[str, UpstreamSettings],
    proxy_settings: ProxySettings | None,
) -> list[str]:
    """Name the variables that set nothing, except where they are faults."""
    app_class = ProxySettings if proxy_settings is None else type(proxy_settings)
    of_app = unknown_variables(app_class, os.environ, mentions)
    return of_app + [
        warning
        for name, mention in mentions.items()
        if name in settings and not settings[name].strict_environment
        for warning in unknown_variables(_class_of(mention), os.environ, mentions.keys() - {name})
    ]


def _class_of(mention: Mention) -> type[UpstreamSettings]:
    if isinstance(mention, str):
        return settings_class(mention)
    return mention if isinstance(mention, type) else type(mention)
