"""Starts and closes the upstreams of one app together; independent of FastAPI.

Start is all or nothing: if one upstream cannot start, the started ones are closed again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Final

from fastapi_proxy_di.errors import ProxyNotStarted, SettingsError
from fastapi_proxy_di.integration.reloading import Reloader
from fastapi_proxy_di.integration.triggers import start_reloads, trigger_faults
from fastapi_proxy_di.limiting.limiter import Limiter, LocalLimiter
from fastapi_proxy_di.observability.families import Numbers
from fastapi_proxy_di.observability.history import History
from fastapi_proxy_di.observability.telemetry import Telemetry
from fastapi_proxy_di.observability.workers import warn_of_local_limits
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
from fastapi_proxy_di.upstream.closing import close_in_order
from fastapi_proxy_di.upstream.composition import compose
from fastapi_proxy_di.upstream.running import RunningUpstream

if TYPE_CHECKING:
    from fastapi_proxy_di.cluster.cluster import Cluster
    from fastapi_proxy_di.integration.shadowed import MountPaths

_logger = logging.getLogger("fastapi_proxy_di.settings")

_REMOVED_NAMES: Final = 1000
"""Names of removed upstreams that are kept, so that their mounts are 503 instead of 500."""


class Runtime:
    """The running upstreams of one app.

    Attributes:
        balancers: The balancers, by upstream name.
        events: Receives the changes of state of all upstreams.
        history: Keeps the recent events.
        mounts: The mounts of the app when it started, and the routes with paths in them.
        request_id: Whether each request gets an ``X-Request-ID``, once started.
        limiter: Counts the requests of ``rate_limit``.
        reloader: Reads the settings anew; ``None`` before the start.
        cluster: What the app shares with its other processes; ``None`` without a store.
        websockets_checked: Whether the dependencies of proxied WebSockets were checked.
    """

    def __init__(self) -> None:
        self.balancers: dict[str, Balancer] = {}
        self.events: Events = Events()
        self.history: History = History()
        _ = self.events.subscribe(self.history.listen)
        self.mounts: Sequence[MountPaths] = ()
        self.limiter: Limiter = LocalLimiter()
        self.request_id: bool = False
        self.websockets_checked: bool = False
        self.reloader: Reloader | None = None
        self.cluster: Cluster | None = None
        # Replaced whole, because threads read the numbers of all upstreams.
        self._running: list[RunningUpstream] = []
        self._telemetry: Telemetry | None = None
        self._taken: set[str] = set()
        self._starting: set[asyncio.Task[Balancer]] = set()
        self._removed: dict[str, None] = {}
        self._closed = False
        self._stop_reloads: Callable[[], Awaitable[None]] | None = None

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
        self._taken.update(mentions)
        given = settings
        upstreams, faults = read_all(mentions)
        if settings is None:
            settings, more = read_proxy_settings()
            faults += more
        for warning in _unread_variables(mentions, upstreams, settings):
            _logger.warning(warning)
        try:
            self._telemetry = None if settings is None else telemetry_of(settings.telemetry)
            if settings is not None:
                self.cluster = cluster_of(settings, self.events, faults)
            self._running = compose_all(
                upstreams, self.events, faults, self._telemetry, self.cluster
            )
            if settings is not None:
                faults += trigger_faults(settings.reload)
            if faults or settings is None:
                raise settings_error(faults)
            self.request_id = settings.request_id
            if self.cluster is not None:
                # Imported late, because redis is an extra.
                from fastapi_proxy_di.limiting.shared import shared_limiter  # noqa: PLC0415

                await self.cluster.start()
                self.limiter = shared_limiter(self.cluster, settings.cluster)
            # Wait for all starts, since an upstream that is still starting cannot be closed.
            starts = await asyncio.gather(
                *(upstream.start() for upstream in self._running), return_exceptions=True
            )
            faults = [
                describe_late_fault(failure, upstream.settings)
                for upstream, failure in zip(self._running, starts, strict=True)
                if isinstance(failure, ValueError)
            ]
            if faults:
                raise settings_error(faults)
            for failure in filter(None, starts):
                raise failure
        except BaseException:
            await self.aclose()
            raise
        self.balancers = {upstream.name: Balancer(upstream) for upstream in self._running}
        self.reloader = Reloader(mentions, given, settings, telemetry_of, lambda: self._running)
        self._stop_reloads = start_reloads(settings.reload, self.reloader)

    def warn_of_limits(self) -> None:
        """Log once if requests are limited and each of several workers counts by itself."""
        if isinstance(self.limiter, LocalLimiter):
            warn_of_local_limits()

    def numbers(self) -> list[Numbers]:
        """Give what the metrics of the running upstreams are read from."""
        return [upstream.numbers() for upstream in self._running]

    @asynccontextmanager
    async def added(self, settings: UpstreamSettings, seconds: float) -> AsyncIterator[Balancer]:
        """Run a further upstream within the block.

        Args:
            settings: Its settings.
            seconds: How long its open requests may go on after the end of the block.

        Raises:
            SettingsError: The name is taken, or a fault of the settings.
            ProxyNotStarted: The app ended while the upstream was being started.
        """
        name = settings.name
        if name in self._taken:
            raise SettingsError(
                f"upstream {name!r} runs already; give each upstream a name of its own, or wait "
                "until the block of proxy_upstream that runs the other one has ended"
            )
        self._taken.add(name)
        try:
            yield await self._add(settings)
        finally:
            try:
                await self._remove(name, seconds)
            finally:
                self._taken.discard(name)

    def has_removed(self, name: str) -> bool:
        """Whether an upstream with this name was added and removed again, not too long ago."""
        return name in self._removed

    async def _add(self, settings: UpstreamSettings) -> Balancer:
        """Start an upstream in a task, so that its own tasks have no context of a request."""
        task = asyncio.get_running_loop().create_task(
            self._start_one(settings), name=f"start of {settings.name}", context=Context()
        )
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        try:
            balancer = await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            assert current is not None
            if current.cancelling() or not self._closed:
                raise
        if self._closed:
            raise ProxyNotStarted(
                f"upstream {settings.name!r} is not started: the app ended meanwhile"
            )
        return balancer

    async def _start_one(self, settings: UpstreamSettings) -> Balancer:
        name = settings.name
        found, faults = read_all({name: settings})
        changed = None if self.reloader is None else self.reloader.telemetry
        telemetry = changed or self._telemetry
        upstreams = compose_all(found, self.events, faults, telemetry, self.cluster)
        if faults:
            raise settings_error(faults)
        (upstream,) = upstreams
        try:
            if self.cluster is not None:
                await self.cluster.read()
            await upstream.start()
        except BaseException as error:
            await upstream.aclose()
            if isinstance(error, ValueError):
                raise settings_error([describe_late_fault(error, settings)]) from error
            raise
        self._running = [*self._running, upstream]
        balancer = Balancer(upstream)
        self.balancers = {**self.balancers, name: balancer}
        self._removed.pop(name, None)
        return balancer

    async def _remove(self, name: str, seconds: float) -> None:
        """Close an upstream that was added, unless the app has closed it."""
        upstream = next((one for one in self._running if one.name == name), None)
        if upstream is None:
            return
        self.balancers = {key: one for key, one in self.balancers.items() if key != name}
        self._removed[name] = None
        if len(self._removed) > _REMOVED_NAMES:
            del self._removed[next(iter(self._removed))]
        try:
            await close_in_order(upstream, seconds)
        except Exception as error:  # noqa: BLE001  # what closes it could do nothing about it
            _log_failed_close(name, error)
        finally:
            self._running = [one for one in self._running if one is not upstream]

    async def aclose(self) -> None:
        """Close all upstreams; one that fails to close is logged and stops no other."""
        self._closed = True
        if self._stop_reloads is not None:
            await self._stop_reloads()
        self.history.wake()
        starting = tuple(self._starting)
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
        upstreams, self._running = self._running, []
        self.balancers = {}
        results = await asyncio.gather(
            *(upstream.aclose() for upstream in upstreams), return_exceptions=True
        )
        for upstream, result in zip(upstreams, results, strict=True):
            if isinstance(result, Exception):
                _log_failed_close(upstream.name, result)
        await self.limiter.aclose()
        if self.cluster is not None:
            await self.cluster.aclose()


def _log_failed_close(name: str, error: Exception) -> None:
    _logger.error("%s: closing failed", name, exc_info=error, extra={"upstream": name})


def compose_all(
    settings: Mapping[str, UpstreamSettings],
    events: Events,
    faults: list[str],
    telemetry: Telemetry | None = None,
    cluster: Cluster | None = None,
) -> list[RunningUpstream]:
    """Compose the upstreams whose settings are valid.

    Args:
        settings: The settings, by upstream name.
        events: Receives the changes of state of all upstreams.
        faults: A list that gets the faults found here, so that one error reports all faults.
        telemetry: The telemetry of the app.
        cluster: What the app shares with its other processes.
    """
    upstreams = []
    for one in settings.values():
        try:
            upstreams.append(compose(one, events=events, telemetry=telemetry, cluster=cluster))
        except ValueError as error:
            faults.append(describe_late_fault(error, one))
    return upstreams


def cluster_of(settings: ProxySettings, events: Events, faults: list[str]) -> Cluster | None:
    """Make what an app shares with its other processes; ``None`` without a store.

    Args:
        settings: The settings of the app.
        events: Receives the changes of state.
        faults: A list that gets the faults found here.
    """
    if settings.cluster.store is None:
        return None
    try:
        # Imported late, because redis is an extra.
        from fastapi_proxy_di.cluster.cluster import Cluster  # noqa: PLC0415

        return Cluster(settings.cluster, events)
    except ModuleNotFoundError:
        fault = "needs the extra redis; run pip install 'fastapi-proxy-di[redis]'"
    except (ValueError, TypeError):  # its text may have the password in it
        fault = "has an option after the '?' that is unknown or has no such value"
    faults.append(describe_late_fault(ValueError(f"cluster.store: {fault}"), settings))
    return None


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
