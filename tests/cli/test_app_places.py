"""``check package.module:app``: what an app mentions, where, and its faults."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Host, Mount, Router

from fastapi_proxy_di import (
    Balancer,
    ProxySettings,
    SettingsError,
    Upstream,
    UpstreamSettings,
    proxy_app,
    proxy_lifespan,
    proxy_router,
)
from fastapi_proxy_di.cli import main
from fastapi_proxy_di.cli.app_places import Place, is_app, read_app
from tests.support.gateways import Billing, billing
from tests.support.servers import dead_port


class Search(UpstreamSettings, name="search"):
    """A second upstream."""


def shop() -> FastAPI:
    """An app that mounts one upstream and injects two; one route gets no requests."""
    app = FastAPI(lifespan=proxy_lifespan)

    async def deep(balancer: Balancer = Depends(Upstream(Search))) -> Balancer:
        return balancer

    @app.get("/invoices")
    async def invoices(balancer: Balancer = Depends(Upstream("billing"))) -> None: ...

    @app.websocket("/live")
    async def live(websocket: WebSocket, balancer: Balancer = Depends(deep)) -> None: ...

    app.include_router(
        proxy_router(Billing, dependencies=[Depends(Upstream("audit"))]), prefix="/billing"
    )

    @app.get("/billing/health")
    async def health(request: Request) -> None: ...

    return app


def test_places_of_an_app() -> None:
    """Mounts, and routes that inject at any level; the mention with settings counts."""
    found = read_app(shop())

    assert dict(found.mentions) == {"billing": Billing, "search": Search, "audit": "audit"}
    assert list(found.places) == [
        Place("billing", "/billing", "HTTP, WebSocket", "mount"),
        Place("billing", "/invoices", "GET", "injected"),
        Place("search", "/live", "WebSocket", "injected"),
        *[place for place in found.places if place.upstream == "audit"],
    ]
    assert {place.kind for place in found.places if place.upstream == "audit"} == {"injected"}
    assert found.shadowed == ("GET /billing/health (behind 'billing' at /billing)",)
    assert found.settings is None


def test_app_is_not_started_and_can_start_afterwards() -> None:
    """A mounted application is free again."""
    mounted = proxy_app(billing("http://a"))
    app = Starlette(
        routes=[Host("shop.test", Router([Mount("/b", mounted)]))], lifespan=proxy_lifespan
    )
    first, second = read_app(app), read_app(app)

    assert first == second
    assert first.places == (Place("billing", "shop.test/b", "HTTP, WebSocket", "mount"),)


def test_settings_of_the_app_are_those_of_code() -> None:
    """If it has some."""
    app, settings = shop(), ProxySettings(request_id=True)
    proxy_lifespan.configure(app, settings)

    assert read_app(app).settings is settings


def test_proxy_app_alone_and_wrapped_apps_are_apps() -> None:
    """A server runs each of them."""
    alone = proxy_app("billing")
    wrapped = GZipMiddleware(shop())

    assert all(map(is_app, (alone, wrapped, shop())))
    assert not any(map(is_app, (FastAPI, Billing, billing("http://a"), 7)))
    assert read_app(alone).places == (Place("billing", "/", "HTTP, WebSocket", "mount"),)
    assert "search" in read_app(wrapped).mentions


def test_app_without_upstreams_is_a_fault() -> None:
    """The reference is probably another object than was meant."""
    with pytest.raises(SettingsError, match="the app neither mounts nor injects an upstream"):
        read_app(FastAPI())


APP = """
from fastapi import FastAPI
from fastapi_proxy_di import *
class Billing(UpstreamSettings, name="billing"): ...
app = FastAPI()
app.include_router(proxy_router("search"), prefix="/search")
app.include_router(proxy_router(Billing(destinations=["http://127.0.0.1:%d"], health={
    "headers": {"x-key": "geheim"}})), prefix="/billing")
@app.get("/billing/health")
def health(): ...
proxy_lifespan.configure(app, ProxySettings(request_id=True))
"""


@pytest.fixture
def word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A reference to an app in a file."""
    (tmp_path / f"app_{tmp_path.name}.py").write_text(APP % dead_port())
    monkeypatch.syspath_prepend(tmp_path)
    return f"app_{tmp_path.name}:app"


def test_check_shows_places_and_probes(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of settings in code and in the environment; exit status as for names; no secret."""
    monkeypatch.setenv("UPSTREAM_SEARCH_DESTINATIONS", f"http://127.0.0.1:{dead_port()}")
    status = main(["check", word])

    shown = capsys.readouterr()
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert status == 1
    assert lines[:3] == [
        "upstream place requests use",
        "search /search HTTP, WebSocket mount",
        "billing /billing HTTP, WebSocket mount",
    ]
    assert "warning: no request reaches GET /billing/health (behind 'billing'" in shown.err
    assert any(line.startswith("billing destinations") and line.endswith("code") for line in lines)
    assert "(app) request_id True code" in lines
    assert any("UPSTREAM_SEARCH_DESTINATIONS (environment)" in line for line in lines)
    assert "geheim" not in shown.out + shown.err


def test_check_reports_the_faults_of_an_app(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As its start would."""
    status = main(["check", word])

    assert status == 2
    assert "UPSTREAM_SEARCH_DESTINATIONS" in capsys.readouterr().err


def test_check_reports_an_app_that_cannot_be_read(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An upstream is named twice, by the app and besides."""
    status = main(["check", word, "billing"])

    assert status == 2
    assert "billing is upstream 'billing', which is given twice" in capsys.readouterr().err


def test_check_names_the_app_that_has_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that uses no upstream."""
    (tmp_path / "no_upstreams.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    monkeypatch.syspath_prepend(tmp_path)
    status = main(["check", "no_upstreams:app"])

    assert status == 2
    assert capsys.readouterr().err == (
        "no_upstreams:app: the app neither mounts nor injects an upstream\n"
    )
