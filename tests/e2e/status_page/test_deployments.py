"""An open tab after a deployment that has changed the page, and a guard that reads the query."""

from __future__ import annotations

import logging
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_proxy_di import Upstream, status_router
from fastapi_proxy_di.integration.status_page import page as rendering
from tests.e2e.status_page.shown import IN_BROWSER, addresses, shown
from tests.support.browser import Browser
from tests.support.gateways import gateway_app
from tests.support.servers import run_app

pytestmark = IN_BROWSER

CHANGED = "Not up to date: the page has changed since it was opened; reload it"


class Redeployed:
    """Serves the page with actions once the app is told that there was a deployment."""

    def __init__(self, app: ASGIApp, state: FastAPI) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve another router below the same path."""
        if getattr(self._state.state, "redeployed", False):
            scope = {**scope, "path": scope["path"].replace("/upstreams", "/new")}
        await self._app(scope, receive, send)


async def test_page_that_has_got_actions_asks_for_a_reload(browser: Browser) -> None:
    """It takes over nothing, keeps what the user has searched for, and works after the reload."""
    (url,) = addresses(1)
    app = gateway_app(url)
    app.include_router(status_router(unguarded=True), prefix="/upstreams")
    app.include_router(status_router(unguarded=True, actions=True), prefix="/new")
    app.add_middleware(Redeployed, state=app)
    async with run_app(app) as running, browser.page() as page:
        await page.go(f"{running.url}/upstreams/")
        await page.shows("1 of 1 destinations")
        await page.click("#search")
        await page.type("127")
        app.state.redeployed = True
        await page.shows(CHANGED)
        searched = await page.evaluate("document.querySelector('#search').value")
        buttons = await page.evaluate("document.querySelectorAll('.actions').length")
        await page.send("Page.reload")
        await page.until("document.querySelectorAll('.actions').length === 1")
        _ = Upstream("billing").of(app).drain(url)
        await page.until("document.querySelector('tbody tr').dataset.state === 'draining'")
        lost = await page.evaluate("document.querySelector('#lost').textContent")

    assert (searched, buttons, lost) == ("127", 0, "")


async def test_page_with_other_columns_asks_for_a_reload(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where cells would have been taken over into columns of another name."""
    async with shown(browser, *addresses(1)) as status:
        monkeypatch.setattr(rendering, "_COLUMNS", ("New", *rendering._COLUMNS))
        layouts = {actions: rendering._layout(actions=actions) for actions in (False, True)}
        monkeypatch.setattr(rendering, "_LAYOUTS", layouts)
        await status.page.shows(CHANGED)
        await status.page.send("Page.reload")
        await status.page.until("document.querySelector('th').textContent === 'New'")
        await status.page.until("document.querySelector('#lost').textContent === ''")


async def test_page_sends_its_query_to_a_guard(
    browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    """With every request and each action; no log of the package shows it, nor does a Referer."""
    referers: set[str | None] = set()

    def guard(referer: Annotated[str | None, Header()] = None, key: str = "") -> None:
        referers.add(referer)
        if key != "s3cret %&":
            raise HTTPException(401, "Who are you?")

    (url,) = addresses(1)
    app = gateway_app(url)
    app.include_router(
        status_router(actions=True), prefix="/upstreams", dependencies=[Depends(guard)]
    )
    caplog.set_level(logging.DEBUG, "fastapi_proxy_di")
    async with run_app(app) as running, browser.page() as page:
        await page.go(f"{running.url}/upstreams/?key=s3cret%20%25%26")
        await page.shows("1 of 1 destinations")
        _ = Upstream("billing").of(app).drain(url)
        await page.until("document.querySelector('tbody tr').dataset.state === 'draining'")
        await page.click('[data-action="undrain"]')
        await page.shows(f"billing: undrain {url}: done")
        await page.until("document.querySelector('tbody tr').dataset.state === 'available'")
        lost = await page.evaluate("document.querySelector('#lost').textContent")
        links = await page.evaluate("[...document.links].map((one) => one.href.split('#')[0])")

    assert lost == ""
    assert set(links) == {f"{running.url}/upstreams/?key=s3cret%20%25%26"}
    assert referers == {None}
    assert "s3cret" not in "".join(
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("fastapi_proxy_di")
    )
