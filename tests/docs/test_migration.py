"""The page on migration from fastapi-reverse-proxy is complete, and its files work."""

import contextlib
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import pytest
from fastapi import Depends, FastAPI, Request, Response, WebSocket
from fastapi.testclient import TestClient

from fastapi_proxy_di import (
    Balancer,
    Destinations,
    HealthSettings,
    Upstream,
    UpstreamSettings,
    proxy_lifespan,
    proxy_router,
)
from fastapi_proxy_di.testing import Received, reply, stand_in
from tests.docs.conftest import SNIPPETS, Gateway, Snippet
from tests.docs.differences import SCENARIOS
from tests.docs.websocket_client import say
from tests.support.servers import Running, dead_port, run_app

PAGE = SNIPPETS.parent / "migration.md"
ORIGINAL_NAMES = [
    "targets",
    "servers",
    "index",
    "app",
    "HealthChecker",
    "interval",
    "timeout",
    "httpx_client",
    "ping_path",
    "pingpath",
    "maxrequests",
    "start",
    "stop",
    "destroy",
    "check_all",
    "status",
    "is_healthy",
    "get_healthy_targets",
    "get_response_times",
    "get_fastest",
    "LoadBalancer",
    "get",
    "peek",
    "get_all",
    "set_index",
    "max_requests",
    "proxy_pass",
    "proxy_pass_websocket",
    "create_httpx_client",
    "close_httpx_client",
    "get_httpx_client",
    "host",
    "path",
    "forward_query",
    "additional_headers",
    "override_headers",
    "override_body",
    "method",
    "subprotocols",
    "target_url",
    "Proxy",
    "close",
    "override_host",
    "req",
    "request",
    "websocket",
    "target",
    "is_personalized",
    "target_configs",
    "last_update",
]
"""The public names and parameters of 0.1.1 and 0.4.0; ``tests/migration`` compares them."""


def rows() -> list[tuple[str, str]]:
    """Give the two cells of each row of the page's tables."""
    found = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)
    return [row for row in found if row[1] not in ("Here", "---")]


def differences() -> dict[str, list[str]]:
    """Give the cells of the table of differences by row: 0.1.1, 0.4.0, here."""
    _, _, table = PAGE.read_text().partition("| | 0.1.1 | 0.4.0 | Here |\n")
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[1:]}


def test_migration_names_everything() -> None:
    """Each name and parameter of fastapi-reverse-proxy has a row."""
    left = " ".join(row[0] for row in rows())

    assert [name for name in ORIGINAL_NAMES if not re.search(rf"\b{name}\b", left)] == []


def test_migration_has_a_scenario_for_each_difference() -> None:
    """Each row of the table is tried, here and with the original."""
    assert list(differences()) == list(SCENARIOS)


def test_migration_shows_what_is_tested() -> None:
    """The code in the right column is part of the tested files."""
    files = [
        file
        for file in sorted((SNIPPETS / "migration").glob("*.py"))
        if not file.name.startswith("before_")
    ]
    code = " ".join(" ".join(file.read_text().split()) for file in files)
    shown = [piece for _, right in rows() for piece in re.findall(r"`([^`]+)`", right)]

    assert len(shown) > 30
    assert [piece for piece in shown if piece not in code] == []


def backend(name: str) -> FastAPI:
    """Build a server for the quick start of fastapi-reverse-proxy."""
    app = FastAPI()

    @app.api_route("/", methods=["GET", "HEAD"])
    async def root() -> dict[str, str]:
        return {"name": name}

    @app.post("/items/{item:path}")
    async def items(item: str, request: Request) -> dict[str, Any]:
        body = await request.body()
        return {"name": name, "item": item, "query": request.url.query, "bytes": len(body)}

    @app.post("/v2/pay")
    async def pay(request: Request) -> dict[str, str]:
        return {"host": request.headers["host"]}

    @app.websocket("/feed")
    async def feed(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="v1")
        await websocket.send_text(f"{name} heard {await websocket.receive_text()}")
        await websocket.close()

    return app


@pytest.mark.e2e
@pytest.mark.parametrize(("file", "probes"), [("quick_start.py", True), ("proxy.py", False)])
async def test_migration_quick_start_runs(
    file: str, probes: bool, snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ported app proxies HTTP and WebSocket, measures latency by probes, and drains."""
    async with run_app(backend("a")) as one, run_app(backend("b")) as two:
        monkeypatch.setenv("UPSTREAM_BACKEND_DESTINATIONS", f"{one.url},{two.url}")
        app = snippet(f"migration/{file}").app
        async with gateway(app) as client:
            balancer = Upstream("backend").of(app)
            root = await client.get("/")
            posted = await client.post("/items/a%2Fb?x=1&x=2", content=b"12345")
            heard, subprotocol = await say(client, "/ws/feed", "hello", subprotocols=["v1"])
            measured = [one.latency_ms is not None for one in balancer.destinations]
            await balancer.drain(two.url)
            left = await client.get("/")

    assert root.json()["name"] in ("a", "b")
    assert posted.json() | {"name": ""} == {
        "name": "",
        "item": "a/b",
        "query": "x=1&x=2",
        "bytes": 5,
    }
    assert (heard[1:], subprotocol) == (" heard hello", "v1")
    assert measured == [probes, probes]
    assert left.json() == {"name": "a"}


@pytest.mark.e2e
async def test_migration_host_is_overridden(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ported endpoint sends the other ``Host``, as the original does."""
    async with run_app(backend("a")) as one:
        monkeypatch.setenv("UPSTREAM_BACKEND_DESTINATIONS", one.url)
        async with gateway(snippet("migration/proxy.py").app) as client:
            paid = await client.post("/pay")

    assert paid.json() == {"host": "pay.example"}


@pytest.mark.e2e
async def test_migration_failover_needs_no_code(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first address is dead, and the client gets the response of the second."""
    async with run_app(backend("b")) as two:
        addresses = f"http://127.0.0.1:{dead_port()},{two.url}"
        monkeypatch.setenv("UPSTREAM_BACKEND_DESTINATIONS", addresses)
        async with gateway(snippet("migration/failover.py").app) as client:
            root = await client.get("/")

    assert root.json() == {"name": "b"}


@contextlib.asynccontextmanager
async def front(
    url: str, *, timeout: float | None = None, checked: bool = False
) -> AsyncIterator[Running]:
    """Run an app with an endpoint that forwards, a mount, and a tunnel."""

    class Backend(UpstreamSettings, name="backend"):
        destinations: Destinations = [url]
        health: HealthSettings = HealthSettings(path="/" if checked else None)
        when_none_available: Literal["panic", "fail"] = "fail" if checked else "panic"

    app = FastAPI()
    app.include_router(proxy_router(Backend), prefix="/shop")

    @app.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "OPTIONS"])
    async def gateway(
        request: Request, backend: Annotated[Balancer, Depends(Upstream("backend"))]
    ) -> Response:
        return await backend.forward(request, timeout=timeout)

    @app.websocket("/{path:path}")
    async def tunnel(
        websocket: WebSocket, backend: Annotated[Balancer, Depends(Upstream("backend"))]
    ) -> None:
        await backend.forward_websocket(websocket)

    async with run_app(app) as running:
        yield running


@pytest.mark.e2e
@pytest.mark.parametrize("row", SCENARIOS)
async def test_migration_behaves_as_the_page_says(row: str) -> None:
    """The last cell of the row has what a gateway of this library does."""
    assert await SCENARIOS[row](front) in differences()[row][2]


@pytest.mark.e2e
async def test_migration_mounted_app_sends_the_path_below_its_mount(gateway: Gateway) -> None:
    """Without a path, ``forward`` sends the path without the mount of the app."""
    shop, outer = FastAPI(), FastAPI()
    app = FastAPI(lifespan=lambda _: proxy_lifespan(shop))

    @outer.get("/{path:path}")
    async def path(path: str) -> str:
        return path

    async with run_app(outer) as origin:

        class Backend(UpstreamSettings, name="backend"):
            destinations: Destinations = [origin.url]

        @shop.get("/{path:path}")
        async def forwarded(
            request: Request, backend: Annotated[Balancer, Depends(Upstream(Backend))]
        ) -> Response:
            return await backend.forward(request)

        app.mount("/shop", shop)
        async with gateway(app) as client:
            response = await client.get("/shop/cart")

    assert response.json() == "cart"


@pytest.mark.parametrize("name", ["host", "x-forwarded-for", "content-length", "connection"])
@pytest.mark.parametrize("argument", ["additional_headers", "override_headers"])
def test_migration_headers_that_cannot_be_set(argument: str, name: str) -> None:
    """An endpoint that sets one gets a ``ValueError``."""
    app = FastAPI(lifespan=proxy_lifespan)
    arguments: dict[str, Any] = {argument: {name: "1"}}

    @app.get("/")
    async def forwarded(
        request: Request, backend: Annotated[Balancer, Depends(Upstream("backend"))]
    ) -> str:
        with pytest.raises(ValueError, match=name):
            await backend.forward(request, **arguments)
        return "refused"

    with stand_in(app, "backend", {"a": reply()}), TestClient(app) as client:
        assert client.get("/").json() == "refused"


def test_migration_settings_are_valid(snippet: Snippet) -> None:
    """The settings for the modes of the checker and the balancer have the page's values."""
    module = snippet("migration/settings.py")
    standard, personalized = module.Standard(), module.Personalized()

    assert (standard.policy, standard.health.path, standard.when_none_available) == (
        "latency",
        "/health",
        "fail",
    )
    assert [(one.health_path, one.max_requests) for one in personalized.destinations] == [
        ("/v1/status", 100),
        ("/health", None),
    ]
    assert module.InTurn().policy == "round_robin"


def test_migration_index_can_be_set(snippet: Snippet) -> None:
    """A policy with an index starts again when its index is set to 0."""
    module = snippet("migration/settings.py")
    app = FastAPI()
    app.include_router(proxy_router("settable"))
    with (
        stand_in(app, module.Settable, {"a": reply(), "b": reply()}) as settable,
        TestClient(app) as client,
    ):
        client.get("/x")
        module.start_over()
        client.get("/x")

    assert settable.tried == ["a", "a"]
    assert module.turns.pick((), None) is None


def test_migration_calls_do_what_the_original_did(snippet: Snippet) -> None:
    """Each endpoint of the page gives what the original call gave."""
    app = snippet("migration/calls.py").app

    def respond(received: Received) -> Any:
        return {"total": 70, "method": received.method, "path": received.path}

    with (
        stand_in(
            app,
            "backend",
            {"a": respond, "b": respond},
            policy="round_robin",
            health={"path": "/h"},
        ) as backend,
        TestClient(app) as client,
    ):
        backend.flip("b", healthy=False)
        state = client.get("/checker").json()
        backend.flip("b", healthy=True)
        picked = client.get("/balancer").json()
        limits = client.post("/limit").json()
        path = client.post("/ping-path?path=/other").json()
        statuses = [client.post(f"/{one}").status_code for one in ("check-all", "stop")]
        item = client.put("/items/7?x=1", json={}).json()
        total = client.get("/total").json()

    assert state["is_healthy"] == {"http://a": True, "http://b": False}
    assert state["get_healthy_targets"] == ["http://a"]
    assert (list(state["get_response_times"]), state["get_fastest"]) == (["http://a"], "http://a")
    assert picked["peek"] == picked["get"]
    assert picked["get_all"] == ["http://a", "http://b"]
    assert (limits, path, statuses) == ([100, 100], "/other", [200, 200])
    assert (item["method"], item["path"], total) == ("POST", "/v2/items/7", 70)
    sent = backend.received[0]
    assert (sent.query, sent.body, sent.headers["x-tenant"]) == ("", b"{}", "acme")


def test_migration_tunnel_takes_the_same_arguments(snippet: Snippet) -> None:
    """The tunnel sends the given subprotocols, headers and query."""
    app = snippet("migration/calls.py").app

    with (
        stand_in(app, "backend", backend("a")) as stand,
        TestClient(app) as client,
        client.websocket_connect("/live?x=1") as live,
    ):
        live.send_text("hello")
        heard = live.receive_text()

    sent = stand.received[0]
    assert (heard, sent.path, sent.query) == ("a heard hello", "/feed", "")
    assert (sent.headers["sec-websocket-protocol"], sent.headers["origin"]) == ("v1", "http://app")
