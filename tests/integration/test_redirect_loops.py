"""Redirects of an upstream come to an end, wherever upstream and mount have their paths."""

from collections.abc import Callable

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.support.gateways import gateway
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e

Url = Callable[[Request, str], str]


def _path(request: Request, path: str) -> str:
    return path


def _by_host(request: Request, path: str) -> str:
    return f"http://{request.headers['host']}{path}"


def _by_forwarded_host(request: Request, path: str) -> str:
    return f"http://{request.headers['x-forwarded-host']}{path}"


def _by_forwarded_prefix(request: Request, path: str) -> str:
    base: str = request.app.state.base
    return request.headers["x-forwarded-prefix"] + path.removeprefix(base)


def _app(base: str, url: Url) -> Starlette:
    """Make an app below ``base``: with a slash at its pages, and a login that leads back."""

    async def without_slash(request: Request) -> Response:
        return RedirectResponse(url(request, request.url.path + "/"))

    async def page(request: Request) -> Response:
        if "seat" in request.cookies:
            return PlainTextResponse(f"page {request.url.path}")
        response = RedirectResponse(url(request, request.url.path), 302)
        response.set_cookie("seat", "7")
        return response

    paths = [f"{base}/", f"{base}/dir/"]
    app = Starlette(
        routes=[
            *(Route(path[:-1], without_slash) for path in paths if path != "/"),
            *(Route(path, page) for path in paths),
        ]
    )
    app.state.base = base
    app.router.redirect_slashes = False
    return app


@pytest.mark.parametrize("url", [_path, _by_host, _by_forwarded_host, _by_forwarded_prefix])
@pytest.mark.parametrize("base", ["", "/base", "/billing", "/billing/v1"])
@pytest.mark.parametrize("preserve_host", [False, True])
@pytest.mark.parametrize("below", ["", "/dir"])
async def test_redirects_end_at_the_page(
    url: Url, base: str, preserve_host: bool, below: str
) -> None:
    """To the slash, then to the page itself with its cookie, then to nowhere."""
    async with (
        run_app(_app(base, url)) as upstream,
        gateway(upstream.url + base, preserve_host=preserve_host) as gate,
        httpx.AsyncClient(base_url=gate.running.url, follow_redirects=True) as client,
    ):
        response = await client.get("/billing" + below)

    assert response.text == f"page {base}{below}/"
    assert response.url == f"{gate.running.url}/billing{below}/"
    assert len(response.history) == 2
