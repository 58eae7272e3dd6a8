"""Whether a proxied route may skip FastAPI's request machinery. When in doubt, it may not.

FastAPI tells one include of a route from another by an object in the scope, which is not
public. So it is proved at start: a throw-away app with a dependency at every level gets
requests, and unless every dependency ran, the fast path stays closed for the process.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import fastapi
from fastapi import APIRouter, Depends, FastAPI, params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import solve_dependencies
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from fastapi_proxy_di.integration.lifespan import UpstreamMention

_logger = logging.getLogger("fastapi_proxy_di.routing")

_SLASH: Final = 0x2F
_UNKNOWN: Final = object()

_WITHOUT_BODY_LIMITS: Final = re.compile(r"0\.(14[4-9]|15\d|16[0-3])\.")
"""Versions of FastAPI; a later one that has another name for its limits must not be among them."""

_FORMS_LIMIT: Final = 32
"""Ways to look at one dependency's callable; the usual one has two."""

Solve = Callable[[Request], Awaitable[BackgroundTask | None]]
"""Runs the dependencies of an include; raises what they raise."""


class FastPath:
    """Decides for one route object, once per include.

    Args:
        route: The route as its router holds it.
        plain: Whether the endpoint itself takes nothing but request and balancer.
    """

    proved: bool | None = None
    """What the proof at start said; ``None`` before it."""

    def __init__(self, route: APIRoute, plain: bool) -> None:
        self._route = route
        self._plain = plain
        # Contexts are not hashable; holding them keeps their ids from being used again.
        self._decided: dict[int, tuple[Any, bool]] = {}

    def context(self, scope: Scope) -> Any | None:
        """The include that this request came through; ``None`` if FastAPI does not say."""
        context = (scope.get("fastapi") or {}).get("effective_route_context")
        if context is None or getattr(context, "original_route", None) is not self._route:
            return None
        return context

    def is_open(self, context: Any, scope: Scope) -> bool:
        """Whether this request may take the fast path."""
        known = self._decided.get(id(context))
        if known is None:
            known = (context, self._plain and _is_harmless(context))
            self._decided[id(context)] = known
        if not known[1] or not FastPath.proved:
            return False
        provider = context.dependency_overrides_provider
        return not (provider is not None and provider.dependency_overrides)


class Shortcut(NamedTuple):
    """One include of a proxied route whose mount has no path parameters.

    Attributes:
        mount: Decoded path in front of what is forwarded.
        raw_mount: The same as it usually travels.
        upstream: Name of the upstream the route leads to.
        context: The include, as FastAPI sees it; its ``app`` runs every dependency.
        harmless: Whether nothing but our own dependency would run.
        solve: Runs every dependency but our own and gives the background tasks that they left;
            ``None`` if one of them yields or reads the body, or if something else than
            dependencies belongs to the include.
    """

    mount: str
    raw_mount: bytes
    upstream: str
    context: Any
    harmless: bool
    solve: Solve | None

    def rest(self, scope: Scope) -> bytes | None:
        """The raw path below the mount, ``None`` if the mount did not travel as it usually does."""
        raw_path: bytes = scope.get("raw_path") or b""
        if not raw_path.startswith(self.raw_mount):
            return None
        rest = raw_path[len(self.raw_mount) :]
        return rest if not rest or rest[0] == _SLASH else None


def shortcut_of(context: Any, upstream: str, plain: bool) -> Shortcut | None:
    """The short way to forward a request for all methods, ``None`` if FastAPI must go it.

    Args:
        context: The include of a proxied route.
        upstream: Name of the upstream the route leads to.
        plain: Whether the endpoint itself takes nothing but request and balancer.
    """
    mount, tail, _ = getattr(context, "path_format", "").partition("{path}")
    if (
        not tail
        or "{" in mount
        or getattr(context, "app", None) is None
        or getattr(context, "dependency_overrides_provider", None) is None
    ):
        return None
    return Shortcut(
        mount,
        quote(mount).encode("ascii"),
        upstream,
        context,
        plain and _is_harmless(context),
        _solver(context) if plain else None,
    )


async def is_proved() -> bool:
    """Send requests through a throw-away app and see whether every dependency counts.

    For each level at which a dependency can stand there is an include that has it there
    alone; the route must find it, and the include's own app must run it. An include without
    any must be seen as harmless.
    """

    async def endpoint() -> None:
        """Where each request ends."""

    async def dependency() -> None:
        """Notes that it ran."""
        seen.append("dependency ran")

    seen: list[str] = []

    class Probe(APIRoute):
        """Notes what the fast path would decide here, then goes FastAPI's way."""

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            context = FastPath(self, True).context(scope)
            shortcut = shortcut_of(context, "", True)
            assert shortcut is not None
            if _is_harmless(context) and shortcut.harmless:
                seen.append("harmless")
            await shortcut.context.app(scope, receive, send)
            if shortcut.solve is not None:
                await shortcut.solve(Request(scope, receive, send))

    async def ask(*, app: bool, parent: bool, include: bool, router: bool) -> list[str]:
        def given(wanted: bool) -> list[params.Depends]:
            return [Depends(dependency)] if wanted else []

        inner = APIRouter(route_class=Probe, dependencies=given(router))
        inner.add_api_route("/x{path:path}", endpoint)
        outer = APIRouter(dependencies=given(parent))
        outer.include_router(inner, prefix="/inner", dependencies=given(include))
        whole = FastAPI(dependencies=given(app))
        whole.include_router(outer, prefix="/outer")
        seen.clear()
        await whole(_scope("/outer/inner/x"), _receive, _send)
        return seen

    levels = ("app", "parent", "include", "router")
    try:
        for here in levels:
            if await ask(**{level: level == here for level in levels}) != ["dependency ran"] * 2:
                return False
        return await ask(app=False, parent=False, include=False, router=False) == ["harmless"]
    except Exception:
        _logger.warning("this FastAPI is unknown; proxied routes go its own way", exc_info=True)
        return False


def _scope(path: str) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("ascii"),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": None,
        "server": None,
    }


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    """Nothing is answered."""


def _solver(context: Any) -> Solve | None:
    """How to run the include's dependencies without the rest of FastAPI's request machinery.

    That rest, two exit stacks and the solving of our own dependency among it, costs more than
    a proxied request. Our own only finds the balancer, so it need not be one unless it is
    overridden. FastAPI's ``solve_dependencies`` runs the others, as in FastAPI's own routes.
    """
    dependencies = getattr(context, "dependencies", None)
    if not isinstance(dependencies, list) or _has_body_limit(context):
        return None

    async def endpoint() -> None:
        """Never called."""

    provider = context.dependency_overrides_provider
    route = APIRoute(
        "/{path:path}",
        endpoint,
        dependencies=dependencies,
        dependency_overrides_provider=provider,
        include_in_schema=False,
        response_model=None,
    )
    dependant = route.dependant
    every = list(_flat(dependant))
    if route.body_field is not None or any(_yields(one.call) for one in every):
        return None
    # What dependencies write to it is for endpoints that give no response of their own.
    unused = None if any(one.response_param_name for one in every) else Response()

    async def solve(request: Request) -> BackgroundTask | None:
        scope = request.scope
        stack = scope["fastapi_middleware_astack"]
        # Where a dependency that calls an upstream leaves what is to be closed.
        scope["fastapi_inner_astack"] = scope["fastapi_function_astack"] = stack
        solved = await solve_dependencies(
            request=request,
            dependant=dependant,
            response=unused,
            dependency_overrides_provider=provider,
            async_exit_stack=stack,
            embed_body_fields=False,
        )
        if solved.errors:
            raise RequestValidationError(solved.errors)
        return solved.background_tasks

    return solve


def _flat(dependant: Dependant) -> Iterator[Dependant]:
    for one in dependant.dependencies:
        yield one
        yield from _flat(one)


def _yields(call: Any) -> bool:
    """Whether a dependency has a part that runs after the request; when in doubt, it has.

    FastAPI looks through partials, wrappers and ``__call__``, each behind the others.
    """
    forms: list[Any] = [call]
    for form in forms:  # grows meanwhile
        further = [inspect.unwrap(form)]
        if isinstance(form, partial):
            further.append(form.func)
        if not inspect.isroutine(form):
            further.append(form.__call__)
        for one in further:
            if not any(one is known for known in forms):
                forms.append(one)
        if len(forms) > _FORMS_LIMIT:
            return True
    return any(
        inspect.isgeneratorfunction(form) or inspect.isasyncgenfunction(form) for form in forms
    )


def _is_harmless(context: Any) -> bool:
    """Whether nothing but our own dependency would run in front of the endpoint."""
    dependant: object = getattr(context, "dependant", _UNKNOWN)
    return (
        isinstance(dependant, Dependant)
        and not _has_body_limit(context)
        and getattr(context, "body_field", _UNKNOWN) is None
        and all(
            _is_mention(dependency.call) and not dependency.dependencies
            for dependency in dependant.dependencies
        )
        and all(
            _is_mention(getattr(depends, "dependency", None))
            for depends in getattr(context, "dependencies", (_UNKNOWN,))
        )
        and not any(
            getattr(dependant, kind)
            for kind in (
                "path_params",
                "query_params",
                "header_params",
                "cookie_params",
                "body_params",
            )
        )
    )


def _has_body_limit(context: Any) -> bool:
    limit = getattr(context, "max_body_size", _UNKNOWN)
    if limit is _UNKNOWN:
        return _WITHOUT_BODY_LIMITS.match(fastapi.__version__) is None
    return limit is not None


def _is_mention(call: object) -> bool:
    return isinstance(call, UpstreamMention)
