"""``status_router``: a page, its data, and actions on destinations.

FastAPI evaluates the annotations when the app runs, so they are not postponed.
"""

import logging
from asyncio import CancelledError, to_thread
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from weakref import WeakSet

from fastapi import APIRouter, Request, Response
from fastapi.params import Depends
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect

from fastapi_proxy_di.integration.balancers import balancers_in_use
from fastapi_proxy_di.integration.lifespan import proxy_lifespan, runtime_of
from fastapi_proxy_di.integration.problems import problem
from fastapi_proxy_di.integration.runtime import Runtime
from fastapi_proxy_di.integration.status_page.actions import ACTIONS
from fastapi_proxy_di.integration.status_page.all_processes import PARAMETER, Asked
from fastapi_proxy_di.integration.status_page.guarded import refuse_open
from fastapi_proxy_di.integration.status_page.page import POLICY, render
from fastapi_proxy_di.integration.status_page.reports import (
    ActionReport,
    AppliedReport,
    StatusReport,
    events_report,
    position_after,
    status_report,
    totals_of,
)
from fastapi_proxy_di.integration.status_page.same_origin import is_same_origin, normal_origin
from fastapi_proxy_di.upstream.balancer import Balancer
from fastapi_proxy_di.upstream.control import UnknownDestination
from fastapi_proxy_di.wire.quoting import quoted

__all__ = ["status_router"]

WAIT_SECONDS: Final = 10.0
"""The longest that a request for events waits. A server that stops waits for it."""
SHOWN_EVENTS: Final = 50
_NOT_STARTED: Final = (
    "the status router shows the upstreams of the app that includes it; they are not started"
)
_MOST_BYTES: Final = 65536
_HEADERS: Final = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": POLICY,
}

_logger = logging.getLogger("fastapi_proxy_di.status")

_Endpoint = Callable[..., Any]


def status_router(
    *,
    actions: bool = False,
    allowed_origins: Iterable[str] = (),
    dependencies: Sequence[Depends] | None = None,
    unguarded: bool = False,
) -> APIRouter:
    """Give a router that shows the upstreams of the app, and changes them if it may.

    ```python
    app.include_router(
        status_router(actions=True), prefix="/upstreams", dependencies=[Depends(require_admin)]
    )
    ```

    - ``GET /``: a page. It is one file, and shows the state without script too.
    - ``GET /status.json``: the same as data.
    - ``GET /{upstream}/totals.json``: what all processes that share ``cluster.store`` have counted
      of an upstream together. The page shows it at ``/?all={upstream}``.
    - ``GET /events?since=&wait=``: events after a position of ``status.json`` or of an earlier
      response; waits up to ``wait`` seconds for one, at most 10. A server that stops waits for
      such a request; the page does not wait, it asks twice a second.
    - With ``actions``: ``POST /{upstream}/drain``, ``undrain``, ``readmit``, ``probe`` with
      ``{"destination": "http://…"}``, and ``weight`` with ``{"destination": …, "weight": 2}``;
      the response is the new state of the upstream. With ``cluster.store`` it comes when all
      processes have applied a drain, undrain or weight, or after two seconds, and has
      ``"processes": {"applied": 11, "of": 12, "missing": ["host:pid"]}``.

    The router shows addresses and has no login of its own. An app does not start with it unless
    the router, its include or the app has a dependency; whether the dependency keeps strangers out
    is not checked. Where the lifespan of the router does not run, because the router or its app is
    mounted, its requests fail instead. The router shows the upstreams of the app that includes it
    (a mounted FastAPI app has its own), of the process that responds: with several workers each
    has its own state only. With ``cluster.store`` it also shows which processes there are, and
    which went missing.

    No response of the router is cached or framed. Responses of the app, such as the 401 of a
    dependency, have the headers that the app gives them.

    Args:
        actions: Whether the router has actions. They take ``application/json`` of at most 64 KiB,
            and refuse requests that a page of another site makes a browser send.
        allowed_origins: Further origins that may send actions, e.g. ``"https://ops.example"``:
            the page's own where a proxy in front changes ``Host`` or its port
            (``X-Forwarded-Host`` is not read), or those of other pages, to which the app gives
            CORS headers.
        dependencies: Dependencies of the router.
        unguarded: Whether the router may be without a dependency, because a middleware or a proxy
            in front has the login. Where nothing but the network guards the app, add Starlette's
            ``TrustedHostMiddleware``: without a login, a page of another site can reach the app
            by a name of that site that resolves to the app's address (DNS rebinding).

    Raises:
        ValueError: One of ``allowed_origins`` is no origin.
        SettingsError: At start, if no dependency guards the router and ``unguarded`` is false.
    """
    origins = _origins(allowed_origins)
    endpoints: set[_Endpoint] = set()
    checked: WeakSet[Any] = WeakSet()

    def check(app: Any) -> None:
        if not unguarded and app not in checked:
            refuse_open(app, endpoints, "status_router")
            checked.add(app)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        check(app)
        async with proxy_lifespan(app):
            yield

    def runtime(request: Request) -> Runtime:
        app = request.scope["app"]
        check(app)  # an outer app may run its upstreams without the lifespan of this router
        return runtime_of(app, _NOT_STARTED)

    async def report(request: Request) -> StatusReport:
        return await status_report(request.scope["app"], runtime(request), actions=actions)

    async def page(request: Request) -> Response:
        """Show the state of all upstreams."""
        shown = await report(request)
        recent = events_report(runtime(request).history, 0).events[: -SHOWN_EVENTS - 1 : -1]
        asked = await _asked(request, runtime(request), shown)
        # In a thread, as the report.
        text = await to_thread(render, shown, recent, asked)
        return Response(text, media_type="text/html", headers=_HEADERS)

    async def status(request: Request) -> Response:
        """Give the state of all upstreams."""
        return _json(await to_thread((await report(request)).model_dump_json))

    async def totals(request: Request, upstream: str) -> Response:
        """Give what all processes have counted of an upstream."""
        if runtime(request).cluster is None:
            return problem(404, "No store is shared: set cluster.store.", _HEADERS)
        if upstream not in await balancers_in_use(request.scope["app"]):
            return problem(404, "There is no such upstream.", _HEADERS)
        found = await totals_of(request.scope["app"], runtime(request), upstream)
        if found is None:
            return problem(503, "The store does not have the totals at the moment.", _HEADERS)
        return _json(found.model_dump_json())

    async def events(request: Request) -> Response:
        """Give the events after a position."""
        history = runtime(request).history
        number = position_after(history, request.query_params.get("since", ""))
        seconds = _seconds(request.query_params.get("wait", "0"))
        if seconds is None:
            return problem(422, "wait is no number of seconds, e.g. 10.", _HEADERS)
        if seconds > 0:
            # A server cancels what still waits when the time of its shutdown is over, and logs the
            # traceback of a request that ends without a response. So there is one, and it is due:
            # nothing is awaited any more.
            with suppress(CancelledError):
                await history.wait(number, min(seconds, WAIT_SECONDS))
        return _json(events_report(history, number).model_dump_json())

    def action(name: str) -> _Endpoint:
        async def act(request: Request, upstream: str) -> Response:
            refusal = _refusal(request, origins)
            if refusal is not None:
                return refusal
            check(request.scope["app"])
            balancer = (await balancers_in_use(request.scope["app"])).get(upstream)
            if balancer is None:
                return problem(404, "There is no such upstream.", _HEADERS)
            body = await _body(request)
            if body is None:
                return problem(413, "The body is longer than 64 KiB.", _HEADERS)
            return await _act(runtime(request), balancer, name, body)

        act.__doc__ = f"Do ``{name}`` to a destination."
        return act

    router = APIRouter(dependencies=dependencies, lifespan=lifespan)
    for path, endpoint in (
        ("/", page),
        ("/status.json", status),
        ("/events", events),
        ("/{upstream}/totals.json", totals),
    ):
        endpoints.add(endpoint)
        router.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
    for name in ACTIONS if actions else ():
        endpoint = action(name)
        endpoints.add(endpoint)
        router.add_api_route(
            f"/{{upstream}}/{name}", endpoint, methods=["POST"], include_in_schema=False
        )
    return router


async def _asked(request: Request, runtime: Runtime, shown: StatusReport) -> Asked:
    """Give what the query of the page asks for."""
    query = request.query_params.multi_items()
    upstream = request.query_params.get(PARAMETER, "")
    if shown.processes is None or all(one.upstream != upstream for one in shown.upstreams):
        return Asked(query)
    return Asked(query, upstream, await totals_of(request.scope["app"], runtime, upstream))


def _origins(given: Iterable[str]) -> frozenset[str]:
    origins = {origin: normal_origin(origin) for origin in given}
    for origin, normal in origins.items():
        if not normal:
            raise ValueError(
                f"allowed_origins: {origin!r} is no origin; write scheme and host, "
                "e.g. https://ops.example"
            )
    return frozenset(origins.values())


def _refusal(request: Request, allowed_origins: frozenset[str]) -> Response | None:
    if not is_same_origin(request.headers, allowed_origins):
        return problem(403, "The request comes from a page of another site.", _HEADERS)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        return problem(415, "The body is JSON, with Content-Type: application/json.", _HEADERS)
    return None


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


async def _body(request: Request) -> bytes | None:
    """Read the body of an action; ``None`` if it is too long. It is empty if the client left."""
    body = b""
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > _MOST_BYTES:
                return None
    except ClientDisconnect:
        return b""
    return body


async def _act(runtime: Runtime, balancer: Balancer, name: str, body: bytes) -> Response:
    action = ACTIONS[name]
    try:
        asked = action.body.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        fields = ", ".join(".".join(map(str, one["loc"])) or "body" for one in faults)
        return problem(422, f"The body has faults: {quoted(fields)}.", _HEADERS)
    try:
        await action.run(balancer, asked)
    except ValueError as error:
        return problem(404 if isinstance(error, UnknownDestination) else 409, str(error), _HEADERS)
    destination = quoted(asked.destination)
    _logger.info(
        "%s: %s of %s, asked for on the status page",
        balancer.name,
        name,
        destination,
        extra={"upstream": balancer.name, "destination": destination},
    )
    processes = await _applied(runtime, balancer.name) if action.shared else None
    return _json(await to_thread(lambda: _action_report(balancer, processes)))


async def _applied(runtime: Runtime, upstream: str) -> AppliedReport | None:
    """Wait until all processes that share a store have applied a change."""
    if runtime.cluster is None:
        return None
    applied = await runtime.cluster.acknowledged(upstream)
    return None if applied is None else AppliedReport(**applied._asdict())


def _action_report(balancer: Balancer, processes: AppliedReport | None) -> str:
    status = balancer.status().model_dump()
    return ActionReport.model_validate({**status, "processes": processes}).model_dump_json()


def _json(text: str) -> Response:
    return Response(text, media_type="application/json", headers=_HEADERS)
