"""An upstream for tests: a real balancer over destinations without sockets.

Each event loop that uses a stand-in gets its own balancer, because ``TestClient`` runs the app
in a thread and a loop of its own. FastAPI reads the annotations here at run time, so they are
not postponed.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from starlette.requests import HTTPConnection

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.integration.dependency import Upstream
from fastapi_proxy_di.integration.problems import install_handler
from fastapi_proxy_di.settings import (
    DestinationSettings,
    Mention,
    UpstreamSettings,
    describe_faults,
    settings_class,
    settings_error,
)
from fastapi_proxy_di.testing.clock import Clock
from fastapi_proxy_di.testing.destinations import Place, Source, StandInFactory
from fastapi_proxy_di.testing.received import Received
from fastapi_proxy_di.upstream.balancer import Balancer
from fastapi_proxy_di.upstream.composition import compose
from fastapi_proxy_di.upstream.running import RunningUpstream
from fastapi_proxy_di.wire.addresses import parse_address
from fastapi_proxy_di.wire.dynamic_address import allowed_address

__all__ = ["StandIn", "stand_in"]

_WAIT_SECONDS: Final = 10.0


class _Running:
    """The stand-in in one event loop."""

    def __init__(self, upstream: RunningUpstream) -> None:
        self.upstream = upstream
        self.balancer = Balancer(upstream)
        self.started = asyncio.ensure_future(upstream.start())

    async def aclose(self) -> None:
        self.started.cancel()
        await asyncio.wait((self.started,))
        await self.upstream.aclose()


class StandIn:
    """An upstream for tests, and a dependency for ``app.dependency_overrides``.

    ```python
    app.dependency_overrides[Upstream("billing")] = StandIn("billing", reply({"total": 70}))
    ```

    `stand_in` sets the override, and removes it at the end.

    Attributes:
        name: Name of the upstream.
        received: Every attempt at every destination, in order.

    Args:
        upstream: Name of the upstream; or a settings class or instance, whose settings apply,
            except the destinations. The environment is not read.
        source: Makes the responses: an ASGI app, a function of `Received`, a step such as
            ``reply(...)``, or a list of steps, one for each attempt; the last one repeats.
            A mapping has a source for each destination, by name: ``"a"``, ``"a:8080"``, or
            ``"https://a/base"``; without a scheme it is ``http``. A name that
            ``allowed_destinations`` allows is a dynamic destination, and no part of the pool. A
            source that is not in a mapping responds at every allowed address; `received` has the
            address as the name of the destination.
        clock: Clock of the upstream.
        **settings: Fields of the settings, such as ``retries={"attempts": 2}``.

    Raises:
        TypeError: A source is of another type.
        SettingsError: A setting or the name of a destination is not valid, or the name of a
            setting is unknown.
    """

    def __init__(
        self,
        upstream: Mention | Upstream,
        source: Source | Mapping[str, Source],
        *,
        clock: Clock | None = None,
        **settings: Any,
    ) -> None:
        self.upstream: Upstream = upstream if isinstance(upstream, Upstream) else Upstream(upstream)
        self.name: str = self.upstream.name
        self.received: list[Received] = []
        sources = source if isinstance(source, Mapping) else {self.name: source}
        self._clock = clock
        self._running: dict[asyncio.AbstractEventLoop, _Running] = {}
        self._undo: list[Callable[[], None]] = []
        places = [Place(name, one, self.received) for name, one in sources.items()]
        self._single = None if isinstance(source, Mapping) else places[0]
        addresses = [_destination(place.name) for place in places]
        self._settings = _settings(self.upstream.source, settings, addresses)
        self._places = {one.url: place for one, place in zip(addresses, places, strict=True)}
        self._urls = {place.name: url for url, place in self._places.items()}

    @property
    def tried(self) -> list[str]:
        """Names of the destinations in the order in which they were tried."""
        return [one.destination for one in self.received]

    def replace(self, app: FastAPI) -> Self:
        """Override the upstream in ``app`` until the stand-in is closed.

        Args:
            app: The app under test.
        """
        overrides = app.dependency_overrides
        key = Upstream(self.name)
        known = overrides.get(key)
        overrides[key] = self

        def undo() -> None:
            overrides.pop(key, None)
            if known is not None:
                overrides[key] = known

        self._undo.append(undo)
        return self

    async def __call__(self, connection: HTTPConnection) -> Balancer:
        """Give the balancer; called by FastAPI."""
        install_handler(connection.scope)
        return await self.balancer()

    async def balancer(self) -> Balancer:
        """Give the balancer for the running event loop."""
        loop = asyncio.get_running_loop()
        for other in [other for other in self._running if other.is_closed()]:
            self._running.pop(other).upstream.discard()
        running = self._running.get(loop)
        if running is None:
            if self._clock is not None:
                self._clock.attach(loop)
            factory = StandInFactory(self._settings, self._places, self._single)
            running = self._running[loop] = _Running(compose(self._settings, factory=factory))
            for url, place in self._places.items():
                if not place.healthy:
                    _set_health(running.upstream, url, healthy=False)
        await asyncio.shield(running.started)
        return running.balancer

    def flip(self, destination: str | None = None, *, healthy: bool) -> None:
        """Make a destination healthy or unhealthy, at once and for later probes.

        Args:
            destination: Name of the destination; by default all of them.
            healthy: Whether probes succeed.

        Raises:
            KeyError: There is no such destination.
        """
        for url in self._urls.values() if destination is None else (self._urls[destination],):
            self._places[url].healthy = healthy
            for loop, running in self._running.items():
                _run_in(loop, partial(_set_health, running.upstream, url, healthy=healthy))

    def close(self) -> None:
        """Remove the overrides and close the balancers. In asynchronous tests use ``aclose``."""
        self._remove_overrides()
        while self._running:
            loop, running = self._running.popitem()
            if loop.is_closed():
                running.upstream.discard()
            _run_in(loop, running.aclose)

    async def aclose(self) -> None:
        """Remove the overrides and close the balancers."""
        self._remove_overrides()
        own = self._running.pop(asyncio.get_running_loop(), None)
        if own is not None:
            await own.aclose()
        self.close()

    async def end_in_loop(self) -> None:
        """Close the balancer of this event loop; called when the app's lifespan ends."""
        running = self._running.pop(asyncio.get_running_loop(), None)
        if running is not None:
            await running.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self.balancer()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<StandIn {self.name}: {', '.join(self._urls)}>"

    def _remove_overrides(self) -> None:
        while self._undo:
            self._undo.pop()()


def stand_in(
    app: FastAPI,
    upstream: Mention | Upstream,
    source: Source | Mapping[str, Source],
    *,
    clock: Clock | None = None,
    **settings: Any,
) -> StandIn:
    """Replace an upstream of an app until the end of a ``with`` or ``async with``.

    ```python
    with stand_in(app, "billing", reply({"total": 70})) as billing, TestClient(app) as client:
        client.get("/invoices/7/summary")

    assert billing.tried == ["billing"]
    ```

    Args:
        app: The app under test.
        upstream: As for `StandIn`.
        source: As for `StandIn`.
        clock: As for `StandIn`.
        **settings: As for `StandIn`.
    """
    return StandIn(upstream, source, clock=clock, **settings).replace(app)


def _destination(name: str) -> DestinationSettings:
    """Give the destination that a test names by its address, with or without a scheme."""
    url = name if "://" in name else f"http://{name}"
    try:
        return DestinationSettings(url=parse_address(url).url)
    except ValueError as error:
        raise SettingsError(f"a destination of the stand-in: {error}") from error


def _settings(
    source: Mention, given: Mapping[str, Any], destinations: list[DestinationSettings]
) -> UpstreamSettings:
    """Give the settings from code alone, with the destinations of the stand-in."""
    declared: dict[str, Any] = {}
    if isinstance(source, UpstreamSettings):
        declared = {name: getattr(source, name) for name in source.model_fields_set}
        base = type(source)
    else:
        base = settings_class(source) if isinstance(source, str) else source

    class Isolated(base):  # type: ignore[misc, valid-type]
        """Settings from code alone, without environment and files."""

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings,)

    try:
        made: UpstreamSettings = Isolated(**{**declared, **given, "destinations": destinations})
    except ValidationError as error:
        raise settings_error(describe_faults(error, base)) from error
    pool = [one for one in made.destination_settings if not _is_dynamic(one, made)]
    return made.model_copy(update={"destinations": tuple(pool)})


def _is_dynamic(destination: DestinationSettings, settings: UpstreamSettings) -> bool:
    allowed = settings.allowed_destinations
    try:
        allowed_address(destination.url, allowed.parsed_origins, allowed.networks)
    except ValueError:
        return False
    return True


def _set_health(upstream: RunningUpstream, url: str, *, healthy: bool) -> None:
    destination = upstream.pool.find(url)
    if destination is None:
        return  # a dynamic destination has no health
    # Results are repeated until the thresholds of the settings are reached.
    while destination.healthy is not healthy:
        upstream.supervisor.probed(destination, healthy, None, "flipped by the test")


def _run_in(
    loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, None] | None]
) -> None:
    """Run ``work`` in ``loop``; wait for its end, unless ``loop`` is the running one."""

    async def run() -> None:
        rest = work()
        if rest is not None:
            await rest

    if loop.is_closed():
        return
    if loop is _running_loop():
        rest = work()
        if rest is not None:
            task = loop.create_task(rest, name="ending a stand-in")
            _ending.add(task)
            task.add_done_callback(_ending.discard)
    elif loop.is_running():
        asyncio.run_coroutine_threadsafe(run(), loop).result(_WAIT_SECONDS)
    else:
        loop.run_until_complete(run())


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


_ending: Final[set[asyncio.Task[None]]] = set()
"""Keeps the tasks alive: an event loop has only weak references to its tasks."""
