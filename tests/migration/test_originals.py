"""fastapi-reverse-proxy as it is installed: its names, its snippets and its behaviour."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import inspect
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import fastapi_reverse_proxy as original
import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.websockets import WebSocketDisconnect

from tests.docs.conftest import SNIPPETS
from tests.docs.differences import SCENARIOS
from tests.docs.test_migration import ORIGINAL_NAMES, backend, differences
from tests.docs.websocket_client import say
from tests.support.servers import Running, dead_port, run_app

pytestmark = [
    pytest.mark.e2e,
    # Neither version closes its checkers' clients, or the client of a failed WebSocket.
    pytest.mark.filterwarnings("ignore"),
]

VERSION: Final = importlib.metadata.version("fastapi-reverse-proxy")
HAS_PROXY: Final = VERSION != "0.1.1"
METHODS: Final = ["GET", "HEAD", "POST", "OPTIONS"]

Load = Callable[..., ModuleType]


def _parameters(function: Callable[..., Any]) -> set[str]:
    return {
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self" and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }


def _public_names() -> set[str]:
    """Give the exported names, their parameters, and the members of exported classes."""
    names = set(original.__all__)
    for one in map(vars(original).__getitem__, original.__all__):
        if not inspect.isclass(one):
            names |= _parameters(one)
            continue
        names |= _parameters(one.__init__)
        members = {name: member for name, member in vars(one).items() if not name.startswith("_")}
        names |= set(members)
        for member in members.values():
            if inspect.isfunction(member):
                names |= _parameters(member)
    checker = original.HealthChecker(["http://a"])
    balancer = original.LoadBalancer(checker)
    attributes = set(vars(checker)) | set(vars(balancer))
    return names | {name for name in attributes if not name.startswith("_")}


async def test_page_has_every_name() -> None:
    """Each public name and parameter of the installed version is on the list of the page's test."""
    assert _public_names() - set(ORIGINAL_NAMES) == set()


def test_checker_takes_no_ping_path() -> None:
    """The README of the original passes ``ping_path``."""
    with pytest.raises(TypeError):
        original.HealthChecker(["http://a"], ping_path="/health")


def test_balancer_has_neither_host_nor_timeout_for_websockets() -> None:
    """Both are arguments of the functions alone; the path of ``proxy_pass`` is required."""
    proxy_pass = inspect.signature(original.LoadBalancer.proxy_pass).parameters
    websocket = inspect.signature(original.LoadBalancer.proxy_pass_websocket).parameters

    assert "override_host" not in proxy_pass
    assert "timeout" not in websocket
    assert proxy_pass["path"].default is inspect.Parameter.empty


def test_balancer_over_a_list_has_no_limit() -> None:
    """``max_requests`` counts only where a checker resets the counts."""
    balancer = original.LoadBalancer(["http://a"])
    balancer.max_requests = 1

    assert [balancer.get() for _ in range(3)] == ["http://a"] * 3


@contextlib.asynccontextmanager
async def front(
    url: str, *, timeout: float = 60.0, checked: bool = False
) -> AsyncIterator[Running]:
    """Run the original in front of a URL, as its README does."""
    sources: Any = original.HealthChecker([url]) if checked else [url]
    balancer = original.LoadBalancer(sources)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if checked:
                await stack.enter_async_context(sources)
            if HAS_PROXY:
                await stack.enter_async_context(original.Proxy(app))
                yield
            else:
                await original.create_httpx_client(app)
                yield
                await original.close_httpx_client(app)

    app = FastAPI(lifespan=lifespan)

    @app.api_route("/shop/{path:path}", methods=METHODS)
    async def shop(request: Request, path: str) -> Any:
        return await original.proxy_pass(request, url, f"/{path}")

    @app.api_route("/{path:path}", methods=METHODS)
    async def gateway(request: Request) -> Any:
        return await original.proxy_pass(request, url, timeout=timeout)

    @app.websocket("/{path:path}")
    async def tunnel(websocket: WebSocket, path: str) -> None:
        if checked:
            await balancer.proxy_pass_websocket(websocket, path=f"/{path}")
        elif HAS_PROXY:
            await original.proxy_pass_websocket(websocket, url, timeout=timeout)
        else:
            await original.proxy_pass_websocket(websocket, f"{url}/{path}")

    async with run_app(app) as running:
        yield running


@pytest.mark.parametrize("row", SCENARIOS)
async def test_original_behaves_as_the_page_says(row: str) -> None:
    """The cell of the installed version has what its gateway does."""
    cells = differences()[row]

    assert await SCENARIOS[row](front) in cells[1 if HAS_PROXY else 0]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Give a function that loads a snippet of the original with other addresses."""

    def load(name: str, **addresses: str) -> ModuleType:
        code = (SNIPPETS / "migration" / name).read_text()
        for port, url in addresses.items():
            code = code.replace(f"http://localhost:{port.removeprefix('port_')}", url)
        file = tmp_path / name
        file.write_text(code)
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


async def test_quick_start_with_a_checker_runs(load: Load) -> None:
    """Both versions run the quick start of 0.1.1: HTTP, a WebSocket, and the state of health."""
    async with run_app(backend("a")) as one:
        down = f"http://127.0.0.1:{dead_port()}"
        module = load("before_quick_start.py", port_8080=one.url, port_8081=down)
        async with (
            run_app(module.app) as running,
            httpx.AsyncClient(base_url=running.url, trust_env=False) as client,
        ):
            root = await client.get("/")
            heard, _ = await say(client, "/ws/feed", "hello", subprotocols=["v1"])
            healthy = module.checker.get_healthy_targets()

    assert (root.json(), heard, healthy) == ({"name": "a"}, "a heard hello", [one.url])


# 0.1.1 has no ``Proxy``, and raises the errors of httpx.
if HAS_PROXY:

    async def test_quick_start_with_proxy_runs(load: Load) -> None:
        """The quick start of 0.4.0: paths, ``override_host`` and a WebSocket."""
        async with run_app(backend("a")) as one:
            module = load("before_proxy.py", port_8080=one.url)
            async with (
                run_app(module.app) as running,
                httpx.AsyncClient(base_url=running.url, trust_env=False) as client,
            ):
                root = await client.get("/")
                paid = await client.post("/pay")
                heard, _ = await say(client, "/ws/feed", "hello", subprotocols=["v1"])

        assert (root.json(), paid.json()) == ({"name": "a"}, {"host": "pay.example"})
        assert heard == "a heard hello"

    async def test_failover_by_exception_runs(load: Load) -> None:
        """The second server's response follows the 502 of the first."""
        async with run_app(backend("b")) as two:
            down = f"http://127.0.0.1:{dead_port()}"
            module = load("before_failover.py", port_8080=down, port_8081=two.url)
            async with (
                run_app(module.app) as running,
                httpx.AsyncClient(base_url=running.url, trust_env=False) as client,
            ):
                root = await client.get("/")

        assert root.json() == {"name": "b"}

    @pytest.mark.parametrize(("refuses", "code"), [(True, 1008), (False, 1011)])
    async def test_failed_handshake_is_an_exception_with_a_code(refuses: bool, code: int) -> None:
        """1008 after a refusal, 1011 without a connection; nothing has been accepted."""
        raised: list[Any] = []
        app = FastAPI()

        async with run_app(FastAPI()) as refusing:
            url = refusing.url if refuses else f"http://127.0.0.1:{dead_port()}"

            @app.websocket("/live")
            async def live(websocket: WebSocket) -> None:
                try:
                    await original.proxy_pass_websocket(websocket, url)
                except Exception as error:
                    raised.append(error)
                    raise

            async with (
                run_app(app) as running,
                httpx.AsyncClient(base_url=running.url, trust_env=False) as client,
            ):
                with pytest.raises((WebSocketDisconnect, Exception)):
                    await say(client, "/live", "hello", subprotocols=["v1"])

        assert [(type(error).__name__, error.code) for error in raised] == [
            ("WebSocketException", code)
        ]


async def test_mounted_app_sends_the_path_of_its_mount() -> None:
    """Without a path, the original sends the client's path with the mount in front."""
    shop, app = FastAPI(), FastAPI()

    @shop.get("/{path:path}")
    async def gateway(request: Request) -> Any:
        return await original.proxy_pass(request, origin.url)

    app.mount("/shop", shop)
    outer = FastAPI()

    @outer.get("/{path:path}")
    async def path(path: str) -> str:
        return path

    async with (
        run_app(outer) as origin,
        run_app(app) as running,
        httpx.AsyncClient(base_url=running.url, trust_env=False) as client,
    ):
        response = await client.get("/shop/cart")

    assert response.json() == "shop/cart"
