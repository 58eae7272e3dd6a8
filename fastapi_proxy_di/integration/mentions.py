"""Finds the upstreams that an app mounts or injects, at any level of dependencies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, runtime_checkable

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Mount

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.integration.compat import (
    dependant_of,
    routes_of,
)
from fastapi_proxy_di.integration.mounts import MountedUpstream, mounted_upstreams
from fastapi_proxy_di.integration.proxied import proxied_by
from fastapi_proxy_di.settings import Mention, UpstreamSettings


@dataclass(frozen=True, eq=False)
class UpstreamMention:
    """One place of an app that uses an upstream.

    Two mentions are equal if their names and settings are the same. ``typing`` caches
    ``Annotated`` by equality, so mentions with different settings must not be equal.

    Attributes:
        name: The name of the upstream.
        source: The source of its settings: the name alone, a settings class, or an instance.
    """

    name: str
    source: Mention

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, UpstreamMention)
            and other.name == self.name
            and (other.by_name if self.by_name else other.source is self.source)
        )

    def __hash__(self) -> int:
        return hash((UpstreamMention, self.name))

    @property
    def by_name(self) -> bool:
        """Whether the mention is only a name, without settings."""
        return isinstance(self.source, str)


@runtime_checkable
class EndsInLoop(Protocol):
    """An override that must be closed in the app's event loop, as stand-ins for tests."""

    async def end_in_loop(self) -> None:
        """Close the override; called when the app's lifespan ends."""


def mentions_of(app: Starlette, mounted: Iterable[MountedUpstream] = ()) -> dict[str, Mention]:
    """Find every upstream that ``app`` mounts or injects, at any level of dependencies.

    Upstreams that the app overrides are left out, since they need no settings.

    Args:
        app: The app whose routes are searched.
        mounted: The applications made by ``proxy_app`` that the app starts.

    Raises:
        SettingsError: Two mentions of one name carry different settings, a stand-in has a name
            that the app does not mention, or upstreams are each other's fallback.
    """
    _check_fallbacks(app.routes)
    found: dict[str, Mention] = {}
    mentioned = {one.upstream.name for one in mounted_upstreams(app.routes)}
    overridden = overridden_upstreams(app)
    for mention in chain(_mentions_in_routes(app.routes), (one.upstream for one in mounted)):
        mentioned.add(mention.name)
        if mention.name in overridden:
            continue
        known = found.setdefault(mention.name, mention.source)
        if isinstance(mention.source, str) or known is mention.source:
            continue
        if not isinstance(known, str):
            raise SettingsError(
                f"upstream {mention.name!r} is given two different settings: "
                f"{_shown(known)} and {_shown(mention.source)}; use one of them everywhere, "
                "or only the name"
            )
        found[mention.name] = mention.source
    for name, override in overridden.items():
        # A test with a misspelt name would reach the real upstream.
        if isinstance(override, EndsInLoop) and name not in mentioned:
            raise SettingsError(
                f"a stand-in is given for upstream {name!r}, which this app neither mounts nor "
                f"injects (it does: {', '.join(sorted(mentioned)) or 'none'}); a mounted app has "
                "stand-ins of its own"
            )
    return found


def overridden_upstreams(app: Any) -> dict[str, object]:
    """Return the current ``app.dependency_overrides`` of upstreams, by upstream name.

    Raises:
        SettingsError: A key carries settings. FastAPI would not apply such an override where
            the upstream is mentioned by its name.
    """
    found: dict[str, object] = {}
    overrides: Mapping[object, object] = getattr(app, "dependency_overrides", {})
    for key, override in overrides.items():
        if isinstance(key, UpstreamMention):
            if not key.by_name:
                raise SettingsError(
                    f"app.dependency_overrides: upstream {key.name!r} is overridden by its name, "
                    f"without settings: app.dependency_overrides[Upstream({key.name!r})] = ..."
                )
            found[key.name] = override
    return found


def is_overridden(app: Any, name: str) -> bool:
    """Whether ``app.dependency_overrides`` replaces an upstream now.

    Raises:
        SettingsError: As for ``overridden_upstreams``.
    """
    return bool(getattr(app, "dependency_overrides", None)) and name in overridden_upstreams(app)


def reached_routes(routes: Iterable[BaseRoute]) -> Iterator[Any]:
    """Yield the routes of an app, those below its mounts and hosts too, each include apart."""
    for route in routes_of(routes):
        original: BaseRoute = route.original_route
        if isinstance(original, Mount | Host):
            # A mounted FastAPI app has a runtime, and a lifespan, of its own.
            if not isinstance(original.app, FastAPI):
                yield from reached_routes(original.routes or ())
        else:
            yield route


def _mentions_in_routes(routes: Iterable[BaseRoute]) -> Iterator[UpstreamMention]:
    for route in reached_routes(routes):
        proxied = proxied_by(getattr(route, "endpoint", None))
        if proxied is not None:
            yield proxied.upstream
            if proxied.fallback is not None:
                yield proxied.fallback
        dependant = dependant_of(route)
        if dependant is not None:
            yield from mentions_in(dependant)


def _check_fallbacks(routes: Iterable[BaseRoute]) -> None:
    """Check that no upstream is the fallback of its own fallback, over any number of steps."""
    proxied = [proxied_by(getattr(route, "endpoint", None)) for route in reached_routes(routes)]
    steps = [(one.upstream.name, one.fallback.name) for one in proxied if one and one.fallback]
    for first, second in steps:
        reached = {second}
        while more := {name for one, name in steps if one in reached} - reached:
            reached |= more
        if first in reached:
            raise SettingsError(
                f"proxy_router: the fallback of {first!r} is {second!r}, which leads back to "
                f"{first!r}; leave one fallback out"
            )


def _as_mention(call: object) -> UpstreamMention | None:
    return call if isinstance(call, UpstreamMention) else None


def mentions_in(dependant: Any) -> Iterator[UpstreamMention]:
    """Yield the upstreams that a dependant of FastAPI has, at any level."""
    mention = _as_mention(dependant.call)
    if mention is not None:
        yield mention
    for dependency in dependant.dependencies:
        yield from mentions_in(dependency)


def _shown(source: Mention) -> str:
    if isinstance(source, UpstreamSettings):
        return f"an instance of {type(source).__qualname__}"
    return source if isinstance(source, str) else source.__qualname__
