"""``FASTAPI_PROXY_REQUEST_ID``: each request has an ``X-Request-ID``, sent up and back."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, Response, WebSocket, WebSocketException
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import WebSocketDenialResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_proxy_di import (
    Balancer,
    ProxySettings,
    Upstream,
    proxy_app,
    proxy_lifespan,
    proxy_router,
)
from fastapi_proxy_di.integration.request_ids import RequestIds
from tests.support.servers import dead_port

ORIGIN = "asgi://tests.integration.test_request_ids:origin"
NAME = "x-request-id"
MADE = "[0-9a-f]{32}"

Billing = Annotated[Balancer, Depends(Upstream("billing"))]
Stock = Annotated[Balancer, Depends(Upstream("stock"))]

origin = FastAPI(telemetry={"tracing": False})


@origin.api_route("/{path:path}", methods=["GET", "POST"])
async def received(request: Request, response: Response) -> list[str]:
    """Give the ids that the request has, and a header that the gateway replaces."""
    response.headers[NAME] = "that-of-the-origin"
    return request.headers.getlist(NAME)


@origin.websocket("/{path:path}")
async def echo(websocket: WebSocket) -> None:
    """Send the ids of the handshake; deny one that asks for it."""
    if websocket.query_params.get("deny"):
        await websocket.send_denial_response(Response(status_code=403))
        return
    await websocket.accept()
    await websocket.send_json(websocket.headers.getlist(NAME))
    await websocket.close()


def routed() -> FastAPI:
    """An app with a proxy router and endpoints of its own."""
    app = FastAPI(telemetry={"tracing": False})

    @app.get("/twice")
    async def twice(request: Request, billing: Billing, stock: Stock) -> list[Any]:
        called = (await billing.client.get("/")).json()
        async with AsyncExitStack() as stack:
            forwarded = await stock.forward(request, "/")
            stack.push_async_callback(forwarded.aclose)
        own = (await stock.client.get("/", headers={NAME: "own"})).json()
        return [called, own, request.headers[NAME]]

    @app.get("/replaced")
    async def replaced(request: Request, billing: Billing, own: bool = False) -> Response:
        headers = {NAME: "own"} if own else {"a": "b"}
        return await billing.forward(request, "/", override_headers=headers)

    @app.websocket("/live")
    async def live(websocket: WebSocket, billing: Billing) -> None:
        await billing.forward_websocket(websocket, "/", override_headers={"a": "b"})

    @app.get("/fails")
    async def fails() -> None:
        raise LookupError

    app.include_router(proxy_router("billing"), prefix="/billing")
    app.include_router(proxy_router("gone"), prefix="/gone")
    return app


def mounted() -> Starlette:
    """A Starlette app that mounts applications."""
    return Starlette(
        routes=[Mount("/billing", proxy_app("billing")), Mount("/gone", proxy_app("gone"))],
        lifespan=proxy_lifespan,
    )


class InFramework:
    """A framework without a lifespan of ours, that runs and mounts the applications."""

    def __init__(self) -> None:
        self._proxies = {"/billing": proxy_app("billing"), "/gone": proxy_app("gone")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            async with AsyncExitStack() as stack:
                for one in self._proxies.values():
                    await stack.enter_async_context(one.running())
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        mount = "/" + scope["path"].split("/")[1]
        await self._proxies[mount]({**scope, "root_path": mount}, receive, send)


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_PROXY_REQUEST_ID", "true")
    for name in ("BILLING", "STOCK"):
        monkeypatch.setenv(f"UPSTREAM_{name}_DESTINATIONS", ORIGIN)
    monkeypatch.setenv("UPSTREAM_GONE_DESTINATIONS", f"http://127.0.0.1:{dead_port()}")


each_way = pytest.mark.parametrize("make", [routed, mounted, InFramework])


@each_way
@pytest.mark.parametrize("path", ["/billing/x", "/gone/x"])
def test_id_of_the_client_comes_back(make: Callable[[], ASGIApp], path: str) -> None:
    """With the upstream's response in place of its own id, and with a problem document."""
    with TestClient(make()) as client:
        response = client.get(path, headers={NAME: "abc.1"})

    assert response.headers.get_list(NAME) == ["abc.1"]
    assert response.json() == ["abc.1"] if path == "/billing/x" else response.status_code == 502


@each_way
def test_id_is_made_where_the_client_sends_none(make: Callable[[], ASGIApp]) -> None:
    """The destination and the client get the same."""
    with TestClient(make()) as client:
        response = client.get("/billing/x", headers={NAME: "not safe"})

    (sent,) = response.json()
    assert response.headers.get_list(NAME) == [sent]
    assert re.fullmatch(MADE, sent)


@each_way
def test_handshake_has_an_id(make: Callable[[], ASGIApp]) -> None:
    """In the accepted one, in a refusal by the upstream, and where no destination responds."""
    headers = {NAME: "live-1"}
    with TestClient(make()) as client:
        with client.websocket_connect("/billing/x", headers=headers) as live:
            accepted: Any = live.extra_headers
            received = live.receive_json()
        denied = []
        for path in ("/billing/x?deny=1", "/gone/x"):
            with (
                pytest.raises(WebSocketDenialResponse) as denial,
                client.websocket_connect(path, headers=headers),
            ):
                raise AssertionError  # pragma: no cover
            denied.append((denial.value.status_code, denial.value.headers[NAME]))

    assert [value for name, value in accepted if name == NAME.encode()] == [b"live-1"]
    assert received == ["live-1"]
    assert denied == [(403, "live-1"), (502, "live-1")]


def closing() -> FastAPI:
    """An app that closes WebSockets instead of accepting them."""

    def forbid() -> None:
        raise WebSocketException(1008)

    app = routed()
    app.include_router(proxy_router("billing"), prefix="/no", dependencies=[Depends(forbid)])

    @app.websocket("/own")
    async def own(websocket: WebSocket) -> None:
        await websocket.close()

    return app


@pytest.mark.parametrize("path", ["/no/x", "/own", "/unknown"])
def test_handshake_that_is_closed_has_an_id(path: str) -> None:
    """By a dependency, by an endpoint, and because there is no route."""
    with (
        TestClient(closing()) as client,
        pytest.raises(WebSocketDenialResponse) as denial,
        client.websocket_connect(path, headers={NAME: "live-1"}),
    ):
        raise AssertionError  # pragma: no cover

    denied = denial.value
    assert (denied.status_code, denied.headers[NAME], denied.content) == (403, "live-1", b"")


async def test_handshake_is_closed_where_the_server_cannot_deny() -> None:
    """The server makes its own response."""
    sent: list[Message] = []

    async def close(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 1008})

    async def receive() -> Message:
        raise AssertionError  # pragma: no cover

    async def send(message: Message) -> None:
        sent.append(message)

    await RequestIds(close)({"type": "websocket", "headers": []}, receive, send)

    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_calls_within_a_request_have_its_id() -> None:
    """Of every upstream, unless a call has one of its own."""
    with TestClient(routed()) as client:
        response = client.get("/twice")

    called, own, request = response.json()
    assert re.fullmatch(MADE, request)
    assert (called, own) == ([request], ["own"])
    assert response.headers[NAME] == request


async def test_call_outside_a_request_has_no_id() -> None:
    """A call outside of requests sends no `X-Request-ID`."""
    app = routed()
    async with app.router.lifespan_context(app):
        response = await Upstream("billing").of(app).client.get("/")

    assert response.json() == []


@pytest.mark.parametrize(("own", "expected"), [("0", ["c-1"]), ("1", ["own"])])
def test_replaced_headers_keep_the_id(own: str, expected: list[str]) -> None:
    """``override_headers`` are instead of the client's, so they get the id, or have their own."""
    with TestClient(routed()) as client:
        response = client.get("/replaced", params={"own": own}, headers={NAME: "c-1"})

    assert response.json() == expected
    assert response.headers[NAME] == "c-1"


def test_replaced_headers_of_a_handshake_keep_the_id() -> None:
    """As those of a request."""
    with (
        TestClient(routed()) as client,
        client.websocket_connect("/live", headers={NAME: "c-1"}) as live,
    ):
        received = live.receive_json()

    assert received == ["c-1"]


def test_error_of_the_app_has_the_id() -> None:
    """So has a path that no route matches."""
    with TestClient(routed(), raise_server_exceptions=False) as client:
        responses = [client.get(path, headers={NAME: "c-1"}) for path in ("/fails", "/no")]

    assert [(one.status_code, one.headers[NAME]) for one in responses] == [
        (500, "c-1"),
        (404, "c-1"),
    ]


def test_app_in_an_app_shares_the_id() -> None:
    """The inner app runs upstreams of its own, and takes the id of the outer one."""
    inner, outer = routed(), routed()
    outer.router.lifespan_context = lambda app: _both(app, inner)
    outer.mount("/inner", inner)
    with TestClient(outer) as client:
        response = client.get("/inner/billing/x")

    (sent,) = response.json()
    assert response.headers.get_list(NAME) == [sent]


def _both(outer: FastAPI, inner: FastAPI) -> Any:
    stack = AsyncExitStack()

    class _Context:
        async def __aenter__(self) -> None:
            await stack.enter_async_context(proxy_lifespan(outer))
            await stack.enter_async_context(proxy_lifespan(inner))

        async def __aexit__(self, *_: object) -> None:
            await stack.aclose()

    return _Context()


def test_application_that_is_served_alone_has_ids() -> None:
    """The lifespan of the application reads the settings."""
    with TestClient(proxy_app("billing")) as client:
        response = client.get("/x", headers={NAME: "c-1"})

    assert (response.json(), response.headers[NAME]) == (["c-1"], "c-1")


@each_way
def test_nothing_is_added_where_it_is_off(
    make: Callable[[], ASGIApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers pass as they came, in both directions."""
    monkeypatch.delenv("FASTAPI_PROXY_REQUEST_ID")
    with TestClient(make()) as client:
        without = client.get("/billing/x")
        given = client.get("/billing/x", headers={NAME: "not safe"})

    assert (without.json(), given.json()) == ([], ["not safe"])
    assert given.headers[NAME] == "that-of-the-origin"


def test_settings_in_code_turn_it_on_for_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrapper is taken off when the app ends, so an app may start again without."""
    monkeypatch.delenv("FASTAPI_PROXY_REQUEST_ID")
    app = routed()
    proxy_lifespan.configure(app, ProxySettings(request_id=True))
    with TestClient(app) as client:
        response = client.get("/billing/x")
        around: object = app.middleware_stack

    assert len(response.json()) == 1
    assert isinstance(around, RequestIds)
    assert not isinstance(app.middleware_stack, RequestIds)


def test_middlewares_that_are_replaced_meanwhile_stay() -> None:
    """The end of the app keeps middlewares that other code has put around it."""
    app = routed()
    with TestClient(app):
        other = app.middleware_stack = app.build_middleware_stack()

    assert app.middleware_stack is other


def test_access_record_has_the_id(caplog: pytest.LogCaptureFixture) -> None:
    """So a response that a client complains of is found in the log."""
    caplog.set_level(logging.INFO, "fastapi_proxy_di.access")
    with TestClient(routed()) as client:
        client.get("/gone/x", headers={NAME: "c-1"})

    (record,) = (one for one in caplog.records if one.name == "fastapi_proxy_di.access")
    assert (vars(record)["request_id"], vars(record)["status"]) == ("c-1", 502)
