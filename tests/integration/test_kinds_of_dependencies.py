"""Whatever FastAPI takes for a dependency works in front of a proxied route as anywhere else.

Each is put in front of an ordinary endpoint and of a proxied route of the same app, and both
get the same requests: what ran, in which order, and how the client was answered must agree.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial, wraps
from typing import Annotated, Any

import pytest
from fastapi import (
    BackgroundTasks,
    Body,
    Depends,
    FastAPI,
    HTTPException,
    Query,
    Request,
    Response,
    Security,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di import Balancer, ProxyError, Upstream, proxy_router
from tests.support.gateways import billing
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin, always, answer
from tests.support.servers import dead_port, run_app

Note = Callable[[str], None]
Make = Callable[[Note], Callable[..., Any]]


class Teapot(Exception):
    """The app has a handler for it."""


async def _handle_teapot(request: Request, error: Exception) -> Response:
    return JSONResponse({"handled": repr(error), "body": (await request.body()).decode()}, 418)


def _plain(note: Note) -> Callable[..., Any]:
    async def dependency(connection: HTTPConnection) -> None:
        note(f"ran for {connection.headers.get('x-token')}")
        if connection.headers.get("x-token") == "bad":
            raise HTTPException(401, "no token", headers={"x-why": "token"})

    return dependency


def _threaded(note: Note) -> Callable[..., Any]:
    def dependency(request: Request) -> None:
        note(f"off the loop: {threading.current_thread() is not threading.main_thread()}")
        if request.headers.get("x-token") == "bad":
            raise HTTPException(403)

    return dependency


def _validated(note: Note) -> Callable[..., Any]:
    async def dependency(page: Annotated[int, Query(ge=1)] = 1) -> None:
        note(f"page {page}")

    return dependency


def _nested(note: Note) -> Callable[..., Any]:
    async def shared() -> str:
        note("shared")
        return "value"

    async def inner(value: Annotated[str, Depends(shared)]) -> str:
        note(f"inner has {value}")
        return value + "!"

    async def dependency(
        given: Annotated[str, Depends(inner)], again: Annotated[str, Depends(shared)]
    ) -> None:
        note(f"outer has {given} and {again}")

    return dependency


def _background(note: Note) -> Callable[..., Any]:
    async def dependency(tasks: BackgroundTasks) -> None:
        note("before")
        tasks.add_task(note, "after")

    return dependency


def _response_headers(note: Note) -> Callable[..., Any]:
    """An endpoint that gives a response of its own does not take these up; nor does a route."""

    async def dependency(request: Request, response: Response) -> None:
        note(f"finds {response.headers.get('x-seen')}")
        response.headers["x-seen"] = request.headers.get("x-token", "")

    return dependency


def _scoped(note: Note) -> Callable[..., Any]:
    async def needs(scopes: SecurityScopes) -> None:
        note(f"scopes {scopes.scopes}")

    async def dependency(_: Annotated[None, Security(needs, scopes=["billing:read"])]) -> None:
        note("outer")

    return dependency


def _yielding(note: Note) -> Callable[..., Any]:
    async def dependency(request: Request) -> AsyncIterator[None]:
        note("open")
        try:
            if request.headers.get("x-token") == "bad":
                raise HTTPException(401)
            yield
        finally:
            note("close")

    return dependency


def _yielding_in_a_thread(note: Note) -> Callable[..., Any]:
    def dependency() -> Iterator[None]:
        note("open")
        yield
        note("close")

    return dependency


def _yielding_before_the_response(note: Note) -> Callable[..., Any]:
    async def resource() -> AsyncIterator[str]:
        note("open")
        yield "it"
        note("close")

    async def dependency(
        it: Annotated[str, Depends(resource, scope="function")],
    ) -> None:
        note(f"has {it}")

    return dependency


def _yielding_object(note: Note) -> Callable[..., Any]:
    class Session:
        async def __call__(self) -> AsyncIterator[None]:
            note("open")
            yield
            note("close")

    return Session()


def _yielding_partial(note: Note) -> Callable[..., Any]:
    async def dependency(*, what: str = "") -> AsyncIterator[None]:
        note(f"open {what}")
        yield
        note("close")

    return partial(dependency, what="it")


def _yielding_behind_a_decorator(note: Note) -> Callable[..., Any]:
    async def dependency() -> AsyncIterator[None]:
        note("open")
        yield
        note("close")

    @wraps(dependency)
    def decorated(*arguments: Any, **named: Any) -> Any:
        return dependency(*arguments, **named)

    return decorated


def _yielding_object_behind_a_decorator(note: Note) -> Callable[..., Any]:
    class Session:
        async def __call__(self) -> AsyncIterator[None]:
            note("open")
            try:
                yield
            except BaseException as error:
                note(f"roll back for {type(error).__name__}")
                raise
            else:
                note("commit")

    session = Session()

    @wraps(session)
    def decorated(*arguments: Any, **named: Any) -> Any:
        return session(*arguments, **named)

    async def dependency(request: Request, _: Annotated[None, Depends(decorated)]) -> None:
        if request.headers.get("x-token") == "bad":
            raise HTTPException(403)

    return dependency


def _reading_the_body(note: Note) -> Callable[..., Any]:
    async def dependency(request: Request) -> None:
        note(f"read {await request.body()!r}")

    return dependency


def _declaring_the_body(note: Note) -> Callable[..., Any]:
    async def dependency(given: Annotated[dict[str, int] | None, Body()] = None) -> None:
        note(f"given {given}")

    return dependency


def _failing(note: Note) -> Callable[..., Any]:
    async def dependency(request: Request) -> None:
        note(f"ran for {request.method}")
        raise Teapot

    return dependency


def _failing_after_reading(note: Note) -> Callable[..., Any]:
    async def dependency(request: Request) -> None:
        note(f"read {await request.body()!r}")
        raise Teapot

    return dependency


def _calling_an_upstream(note: Note) -> Callable[..., Any]:
    async def dependency(
        request: Request, balancer: Annotated[Balancer, Depends(Upstream("billing"))]
    ) -> None:
        response = await balancer.forward(request, "/auth", override_body=b"")
        note(f"forwarded: {response.status_code}")

    return dependency


KINDS: list[Make] = [
    _plain,
    _threaded,
    _validated,
    _nested,
    _background,
    _response_headers,
    _scoped,
    _yielding,
    _yielding_in_a_thread,
    _yielding_before_the_response,
    _yielding_object,
    _yielding_partial,
    _yielding_behind_a_decorator,
    _yielding_object_behind_a_decorator,
    _reading_the_body,
    _declaring_the_body,
    _failing,
    _failing_after_reading,
    _calling_an_upstream,
]


@pytest.mark.parametrize("make", KINDS)
async def test_a_dependency_works_as_in_front_of_an_endpoint(make: Make) -> None:
    """Status, body, headers that matter, and what ran are those of an ordinary endpoint."""
    ran: list[str] = []
    dependency = make(ran.append)
    app = FastAPI(exception_handlers={Teapot: _handle_teapot})
    guard = [Depends(dependency)]
    async with ScriptedOrigin(always(answer(body=b"answer"))) as origin:

        @app.post("/own/{rest}", dependencies=guard)
        @app.get("/own/{rest}", dependencies=guard)
        async def own() -> Response:
            return Response(b"answer")

        app.include_router(proxy_router(billing(origin.url)), prefix="/proxied", dependencies=guard)
        ended = asyncio.Event()

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            """What runs after the response has run when the app returns."""
            try:
                await app(scope, receive, send)
            finally:
                ended.set()

        async with run_app(watched) as running:
            seen: dict[str, list[Any]] = {"own": [], "proxied": []}
            for mount, observed in seen.items():
                for headers, query, body in (
                    ([], "", None),
                    ([(b"x-token", b"bad")], "", None),
                    ([], "?page=none", None),
                    ([], "?page=7", None),
                    ([(b"content-type", b"application/json")], "", b'{"a": 1}'),
                    ([(b"content-type", b"application/json")], "", b'{"a": "x"}'),
                ):
                    ended.clear()
                    reply = await fetch(
                        running.address,
                        "GET" if body is None else "POST",
                        f"/{mount}/x{query}",
                        headers,
                        body,
                    )
                    await ended.wait()
                    observed.append((reply.status, reply.body, reply.all(b"x-why"), ran[:]))
                    ran.clear()

    assert seen["proxied"] == seen["own"]
    assert any(notes for *_, notes in seen["own"])


async def test_validation_errors_reach_a_handler_of_the_app() -> None:
    """The app's own handler sees the same error as for an endpoint."""

    async def dependency(page: int) -> None:
        """Takes a number."""

    app = FastAPI()

    @app.exception_handler(RequestValidationError)
    async def handle(request: Request, error: RequestValidationError) -> Response:
        return JSONResponse({"errors": [one["loc"] for one in error.errors()]}, 400)

    async with ScriptedOrigin() as origin:
        app.include_router(
            proxy_router(billing(origin.url)), prefix="/b", dependencies=[Depends(dependency)]
        )
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/b/x?page=one")

    assert (reply.status, reply.body) == (400, b'{"errors":[["query","page"]]}')
    assert not origin.requests


async def test_handlers_find_the_body_that_a_dependency_read() -> None:
    """Also for our own errors: the handler's request is the one the dependency had."""

    async def read(request: Request) -> None:
        await request.body()

    async def handle(request: Request, error: Exception) -> Response:
        return Response(b"lost: " + await request.body(), 502)

    app = FastAPI(exception_handlers={ProxyError: handle})
    app.include_router(
        proxy_router(billing(f"http://127.0.0.1:{dead_port()}"), websocket=False),
        prefix="/b",
        dependencies=[Depends(read)],
    )
    async with run_app(app) as running:
        reply = await fetch(running.address, "POST", "/b/x", body=b"order 7")

    assert (reply.status, reply.body) == (502, b"lost: order 7")
