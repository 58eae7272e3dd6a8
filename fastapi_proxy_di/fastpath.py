"""Whether a proxied route may skip FastAPI's request machinery. When in doubt, it may not.

FastAPI tells one include of a route from another by an object in the scope, which is not
public. So it is proved at start: a throw-away app with a dependency at every level gets
requests, and unless every dependency ran, the fast path stays closed for the process.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI, params
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Scope, Send

from fastapi_proxy_di.lifespan import UpstreamMention

_logger = logging.getLogger("fastapi_proxy_di.routing")

_UNKNOWN: Final = object()


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


async def is_proved(route_class: type[APIRoute]) -> bool:
    """Send requests through a throw-away app and see whether every dependency counts.

    For each level at which a dependency can stand there is an include that has it there
    alone; the route must find it. An include without any must be seen as harmless.

    Args:
        route_class: Makes the routes, as a proxy router does.
    """

    async def endpoint() -> None:
        """Never runs: each request stops at the decision."""

    async def dependency() -> None:
        """Never runs either."""

    seen: list[bool] = []

    class Probe(APIRoute):
        """Notes what the fast path would decide here."""

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            fast_path = FastPath(self, True)
            context = fast_path.context(scope)
            seen.append(context is not None and _is_harmless(context))

    async def ask(*, app: bool, parent: bool, include: bool, router: bool) -> bool:
        def given(wanted: bool) -> list[params.Depends]:
            return [Depends(dependency)] if wanted else []

        inner = APIRouter(route_class=Probe, dependencies=given(router))
        inner.add_api_route("/x", endpoint)
        outer = APIRouter(dependencies=given(parent))
        outer.include_router(inner, prefix="/inner", dependencies=given(include))
        whole = FastAPI(dependencies=given(app))
        whole.include_router(outer, prefix="/outer")
        seen.clear()
        await whole(_scope("/outer/inner/x"), _receive, _send)
        return seen == [True]

    levels = ("app", "parent", "include", "router")
    try:
        hidden = [await ask(**{level: level == here for level in levels}) for here in levels]
        return not any(hidden) and await ask(app=False, parent=False, include=False, router=False)
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


def _is_harmless(context: Any) -> bool:
    """Whether nothing but our own dependency would run in front of the endpoint."""
    dependant = getattr(context, "dependant", _UNKNOWN)
    return (
        isinstance(dependant, Dependant)
        and getattr(context, "max_body_size", _UNKNOWN) is None
        and getattr(context, "body_field", _UNKNOWN) is None
        and all(
            isinstance(dependency.call, UpstreamMention) and not dependency.dependencies
            for dependency in dependant.dependencies
        )
        and all(
            isinstance(depends.dependency, UpstreamMention)
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
