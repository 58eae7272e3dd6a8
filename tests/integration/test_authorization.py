"""Dependencies protect a proxied mount, HTTP and WebSocket, wherever they are declared."""

import logging
from collections.abc import Callable
from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from fastapi_proxy_di import ForwardOptions, proxy_router
from tests.support.gateways import billing
from tests.support.http_client import RawResponse, connect, fetch, request
from tests.support.origins import Headers, ScriptedOrigin
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e


_HANDSHAKE: Headers = [
    (b"Connection", b"Upgrade"),
    (b"Upgrade", b"websocket"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]
_TOKEN: Headers = [(b"X-Token", b"yes")]


async def require_token(connection: HTTPConnection) -> None:
    """Refuse requests without the token."""
    if connection.headers.get("x-token") != "yes":
        raise HTTPException(401, "no token")


async def require_bearer(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
) -> None:
    """Refuse requests without any bearer token."""
    assert credentials.credentials


async def require_by_a_dependency_of_its_own(
    _: Annotated[None, Depends(require_token)],
) -> None:
    """Refuse the requests that the sub-dependency refuses."""


_GUARD = [Depends(require_token)]


def _on_include(url: str) -> FastAPI:
    app = FastAPI()
    app.include_router(proxy_router(billing(url)), prefix="/billing", dependencies=_GUARD)
    return app


def _on_router(url: str) -> FastAPI:
    app = FastAPI()
    app.include_router(proxy_router(billing(url), dependencies=_GUARD), prefix="/billing")
    return app


def _on_parent(url: str) -> FastAPI:
    app, parent = FastAPI(), APIRouter(dependencies=_GUARD)
    parent.include_router(proxy_router(billing(url)), prefix="/billing")
    app.include_router(parent)
    return app


def _on_include_of_parent(url: str) -> FastAPI:
    app, parent = FastAPI(), APIRouter()
    parent.include_router(proxy_router(billing(url)), prefix="/billing")
    app.include_router(parent, dependencies=_GUARD)
    return app


def _on_grandparent(url: str) -> FastAPI:
    app, parent, grandparent = FastAPI(), APIRouter(), APIRouter(dependencies=_GUARD)
    parent.include_router(proxy_router(billing(url)), prefix="/billing")
    grandparent.include_router(parent)
    app.include_router(grandparent)
    return app


def _on_app(url: str) -> FastAPI:
    app = FastAPI(dependencies=_GUARD)
    app.include_router(proxy_router(billing(url)), prefix="/billing")
    return app


def _below_the_surface(url: str) -> FastAPI:
    app = FastAPI()
    app.include_router(
        proxy_router(billing(url)),
        prefix="/billing",
        dependencies=[Depends(require_by_a_dependency_of_its_own)],
    )
    return app


def _on_options(url: str) -> FastAPI:
    async def options(_: Annotated[None, Depends(require_token)]) -> ForwardOptions:
        return ForwardOptions()

    app = FastAPI()
    app.include_router(proxy_router(billing(url), options=options), prefix="/billing")
    return app


_PLACES: list[Callable[[str], FastAPI]] = [
    _on_include,
    _on_router,
    _on_parent,
    _on_include_of_parent,
    _on_grandparent,
    _on_app,
    _below_the_surface,
    _on_options,
]


@pytest.mark.parametrize("place", _PLACES)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "PROPFIND"])
async def test_http_without_credentials_reaches_nothing(
    place: Callable[[str], FastAPI], method: str
) -> None:
    """401, whatever the spelling of the path; the origin gets no connection."""
    async with ScriptedOrigin() as origin, run_app(place(origin.url)) as running:
        for target in ("/billing/x", "/billing", "/billing/", "/bill%69ng/x", "/billing//x"):
            reply = await fetch(running.address, method, target, [(b"X-Token", b"no")])

            assert reply.status == 401

    assert origin.connections == 0


@pytest.mark.parametrize("place", _PLACES)
async def test_http_with_credentials_is_forwarded(place: Callable[[str], FastAPI]) -> None:
    """The guard allows the request."""
    async with ScriptedOrigin() as origin, run_app(place(origin.url)) as running:
        reply = await fetch(running.address, "GET", "/billing/x", _TOKEN)

    assert (reply.status, reply.body) == (200, b"ok")
    assert origin.request.target == b"/x"


async def _shake_hands(
    address: tuple[str, int], headers: Headers, target: str = "/billing/x"
) -> RawResponse:
    async with connect(address) as client:
        await client.send(request("GET", target, [*_HANDSHAKE, *headers]))
        return await client.read_response()


@pytest.mark.parametrize("place", _PLACES)
async def test_websocket_without_credentials_reaches_nothing(
    place: Callable[[str], FastAPI],
) -> None:
    """The handshake is refused before anything is dialled."""
    async with ScriptedOrigin() as origin, run_app(place(origin.url)) as running:
        for target in ("/billing/x", "/billing", "/billing/", "/bill%69ng/x"):
            reply = await _shake_hands(running.address, [], target)

            assert reply.status in (401, 403)

    assert origin.connections == 0


@pytest.mark.parametrize("place", _PLACES)
async def test_websocket_with_credentials_is_forwarded(place: Callable[[str], FastAPI]) -> None:
    """The client gets the refusal of the origin, which has no WebSocket."""
    async with ScriptedOrigin() as origin, run_app(place(origin.url)) as running:
        reply = await _shake_hands(running.address, _TOKEN)

    assert reply.status != 101
    assert origin.request.one(b"upgrade") == b"websocket"


async def test_security_scheme_guards_both() -> None:
    """FastAPI's own schemes work on the mount, for HTTP and WebSocket."""
    async with ScriptedOrigin() as origin:
        app = FastAPI()
        app.include_router(
            proxy_router(billing(origin.url)),
            prefix="/billing",
            dependencies=[Depends(require_bearer)],
        )
        async with run_app(app) as running:
            http = await fetch(running.address, "GET", "/billing/x")
            websocket = await _shake_hands(running.address, [])
            before = origin.connections
            allowed = await fetch(
                running.address, "GET", "/billing/x", [(b"Authorization", b"Bearer t")]
            )

    assert http.status in (401, 403)
    assert websocket.status in (401, 403)
    assert before == 0
    assert allowed.status == 200


async def test_one_mount_s_guard_is_not_the_other_s() -> None:
    """Two includes of one upstream have guards of their own."""
    async with ScriptedOrigin() as origin:
        app, router = FastAPI(), proxy_router(billing(origin.url))
        app.include_router(router, prefix="/open")
        app.include_router(router, prefix="/guarded", dependencies=_GUARD)
        async with run_app(app) as running:
            guarded = await fetch(running.address, "GET", "/guarded/x")
            guarded_websocket = await _shake_hands(running.address, [], "/guarded/x")
            before = origin.connections
            opened = await fetch(running.address, "GET", "/open/x")

    assert guarded.status == 401
    assert guarded_websocket.status in (401, 403)
    assert before == 0
    assert opened.status == 200


async def require_for_http_only(request: Request) -> None:
    """Take ``Request``, which FastAPI cannot give on a WebSocket."""


async def test_dependency_on_request_never_dials_a_websocket(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It cannot run, so the handshake is refused, and a warning is logged at start."""
    caplog.set_level(logging.WARNING)
    async with ScriptedOrigin() as origin:
        app = FastAPI()
        app.include_router(
            proxy_router(billing(origin.url)),
            prefix="/billing",
            dependencies=[Depends(require_for_http_only)],
        )
        async with run_app(app) as running:
            warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
            reply = await _shake_hands(running.address, [])

    assert len(warnings) == 1
    assert "require_for_http_only" in warnings[0]
    assert "HTTPConnection" in warnings[0]
    assert 400 <= reply.status < 600
    assert origin.connections == 0


class RequireForHttpOnly:
    """A guard with a parameter."""

    def __call__(self, request: Request) -> None:
        """Take ``Request`` as well."""

    def __repr__(self) -> str:
        return "RequireForHttpOnly()"


async def test_each_mount_that_no_websocket_can_reach_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However many proxy routers; also for a guard of a dependency, and an instance."""
    guard = RequireForHttpOnly()

    async def deep(_: Annotated[None, Depends(guard)]) -> None:
        """Depend on a guard that takes ``Request``."""

    caplog.set_level(logging.WARNING)
    async with ScriptedOrigin() as origin:
        app, settings = FastAPI(), billing(origin.url)
        for name in ("one", "two", "open"):
            dependencies = [] if name == "open" else [Depends(deep)]
            app.include_router(proxy_router(settings), prefix=f"/{name}", dependencies=dependencies)
        async with run_app(app) as running:
            warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
            caplog.clear()
            reply = await _shake_hands(running.address, [], "/one/x")
            errors = [r for r in caplog.records if r.levelname == "ERROR"]

    assert [text.split(" takes ")[0] for text in warnings] == ["billing: RequireForHttpOnly()"] * 2
    assert ["/one" in warnings[0], "/two" in warnings[1]] == [True, True]
    assert reply.status >= 400
    assert len(errors) == 1
    assert origin.connections == 0


async def test_no_warning_without_a_websocket_route(caplog: pytest.LogCaptureFixture) -> None:
    """``websocket=False`` gives no route and no warning."""
    caplog.set_level(logging.WARNING)
    async with ScriptedOrigin() as origin:
        app = FastAPI()
        app.include_router(
            proxy_router(billing(origin.url), websocket=False),
            prefix="/billing",
            dependencies=[Depends(require_for_http_only)],
        )
        async with run_app(app) as running:
            warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
            http = await fetch(running.address, "GET", "/billing/x")
            reply = await _shake_hands(running.address, [])

    assert warnings == []
    assert http.status == 200
    assert 400 <= reply.status < 500
    assert len(origin.requests) == 1
