"""The page follows the gateway without a reload, and says when it cannot."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import httpx
import pytest
from fastapi import Depends, HTTPException
from fastapi.security import HTTPBasic
from starlette.applications import Starlette
from starlette.routing import Mount

from fastapi_proxy_di import Upstream, proxy_lifespan, status_router
from tests.e2e.status_page.shown import HOSTILE, IN_BROWSER, addresses, row, shown
from tests.support.browser import Browser
from tests.support.gateways import gateway_app
from tests.support.processes import running
from tests.support.servers import dead_port, free_port, run_app

pytestmark = IN_BROWSER


async def test_killed_destination_is_shown(browser: Browser, tmp_path: Path) -> None:
    """With state, reason and time; the page was not loaded again. So is its return."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    serve = (sys.executable, "-u", "-m", "http.server", str(port), "--bind", "127.0.0.1")
    health = {"path": "/", "interval": 0.1, "fall": 1, "rise": 1}
    async with running(*serve, folder=tmp_path) as origin:
        await origin.line("Serving")
        async with shown(browser, url, health=health) as status:
            await status.page.evaluate("window.loaded = 'once'")
            origin.signal(signal.SIGKILL)
            await status.state(url, "unhealthy")
            # A probe under way sees the connection end, a later one none at all.
            reasons = "/unhealthy \\((cannot connect|the destination closed)/"
            await status.row(url, f"{reasons}.test(row.innerText)")
            await status.row(
                url, "Date.now() - Date.parse(row.querySelector('time').dateTime) < 60e3"
            )
            await status.page.shows(f"billing: {url} is down")
            async with running(*serve, folder=tmp_path) as again:
                await again.line("Serving")
                await status.state(url, "available")
            title = await status.page.evaluate("document.title")
            loaded = await status.page.evaluate("window.loaded")

    assert title == "Upstreams"
    assert loaded == "once"


async def test_ejected_destination_is_shown(browser: Browser) -> None:
    """A failed request ejects; the page says for how long, and why."""
    url = f"http://127.0.0.1:{dead_port()}"
    async with (
        shown(browser, url, *addresses(1), ejection={"consecutive": 1}) as status,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        balancer = status.balancer
        while not any(one.ejected for one in balancer.destinations):
            await client.get(status.url.replace("/upstreams/", "/billing/x"))
        ejected = next(one.url for one in balancer.destinations if one.ejected)
        await status.state(ejected, "ejected")
        await status.row(ejected, "/ejected \\(connect\\w*\\), \\d+ s left/.test(row.innerText)")
        await status.page.until("document.title.startsWith('(1 not available')")


async def test_recent_failures_are_shown(browser: Browser) -> None:
    """In the row, the overview and the title, without a reload."""
    url = f"http://127.0.0.1:{dead_port()}"
    async with (
        shown(browser, url) as status,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        await status.page.evaluate("window.loaded = 'once'")
        await client.get(status.url.replace("/upstreams/", "/billing/x"))
        await status.row(url, "row.cells[5].textContent.endsWith(', 100 % lately')")
        await status.page.until("document.title === '(1 troubled) Upstreams'")
        overview = await status.page.evaluate("document.querySelector('#overview').innerText")
        loaded = await status.page.evaluate("window.loaded")

    assert "billing 1 of 1 available, 100 % of attempts failed lately" in overview
    assert loaded == "once"


async def test_two_tabs(browser: Browser) -> None:
    """A change in one is seen in the other."""
    url, other = addresses(2)
    async with shown(browser, url, other) as status, browser.page() as second:
        await second.go(status.url)
        await status.click(url, "drain")
        await second.until(f"{row(url)}.dataset.state === 'draining'")


async def test_hidden_tab_asks_for_nothing(browser: Browser) -> None:
    """The page asks at once when the tab is shown again."""
    (url,) = addresses(1)
    requests = "performance.getEntriesByType('resource').length"
    hide = """
        window.away = true;
        Object.defineProperty(document, "hidden", { get: () => window.away });
        new Promise((resolve) => {
          const settled = () => looking ? setTimeout(settled, 10) : resolve();
          settled();
        })"""
    async with shown(browser, url) as status, browser.page() as second:
        await second.go(status.url)
        await status.page.until(f"{requests} > 0")
        await status.page.evaluate(hide)
        before = await status.page.evaluate(requests)
        _ = status.balancer.drain(url)
        await second.until("document.querySelector('tbody tr').dataset.state === 'draining'")
        after = await status.page.evaluate(requests)
        await status.page.evaluate(
            "window.away = false; document.dispatchEvent(new Event('visibilitychange'))"
        )
        await status.state(url, "draining")

    assert after == before > 0


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (HTTPException(401, "Who are you?"), "Who are you?; reload the page to sign in"),
        (HTTPException(503, HOSTILE), HOSTILE),
        (HTTPException(503, [1]), "status 503"),
        (
            HTTPException(307, headers={"location": "https://login.example/"}),
            "redirected; reload the page to sign in",
        ),
    ],
)
async def test_refused_page_says_so(browser: Browser, refusal: HTTPException, text: str) -> None:
    """The page goes on asking, and is up to date after the first response that is not refused."""
    (url,) = addresses(1)
    async with shown(browser, url) as status:
        status.app.state.refusal = refusal
        await status.page.shows(f"Not up to date: {text}")
        role = await status.page.evaluate("document.querySelector('#lost').role")
        _ = status.balancer.drain(url)
        status.app.state.refusal = None
        await status.state(url, "draining")
        await status.page.until("document.querySelector('#lost').textContent === ''")
        images = await status.page.evaluate("document.images.length")
        assert all("Failed to load resource" in line for line in status.page.log)
        status.page.log.clear()

    assert role == "status"
    assert images == 0


async def test_stopped_gateway_is_a_notice(browser: Browser) -> None:
    """The page waits for the next process, and shows that one."""
    port = free_port()
    module = "tests.e2e.status_page.served:app"
    serve = (sys.executable, "-m", "uvicorn", module, "--port", str(port))
    environment = {"UPSTREAM_BILLING_DESTINATIONS": addresses(1)[0]}
    async with browser.page() as page:
        async with running(*serve, environment=environment) as gateway:
            await gateway.line("running on")
            await page.go(f"http://127.0.0.1:{port}/upstreams/")
            await page.shows(f"Process {gateway.pid} ")
        await page.shows("Not up to date: ")
        async with running(*serve, environment=environment) as gateway:
            await page.shows(f"Process {gateway.pid} ")
            await page.until("document.querySelector('#lost').textContent === ''")


async def test_page_below_prefixes(browser: Browser) -> None:
    """All addresses in the page are relative, so a password in its own address does no harm."""
    (url,) = addresses(1)
    inner = gateway_app(url)
    inner.include_router(
        status_router(actions=True), prefix="/ops/upstreams", dependencies=[Depends(HTTPBasic())]
    )

    def lifespan(_: Starlette) -> object:
        return proxy_lifespan(inner)

    outer = Starlette(routes=[Mount("/inner", inner)], lifespan=lifespan)  # type: ignore[arg-type]
    async with run_app(outer, root_path="/outside") as server, browser.page() as page:
        address = f"{server.authority}/inner/ops/upstreams/"
        await page.send("Page.navigate", url=f"http://user:secret@{address}")
        await page.shows("1 of 1 destinations")
        _ = Upstream("billing").of(inner).drain(url)
        await page.until("document.querySelector('tbody tr').dataset.state === 'draining'")
        await page.click('[data-action="undrain"]')
        await page.until("document.querySelector('tbody tr').dataset.state === 'available'")


async def test_texts_from_outside_stay_texts(browser: Browser) -> None:
    """Texts are escaped at load, at an update and at a reload."""
    (url,) = addresses(1)
    async with shown(browser, url) as status:
        (destination,) = status.balancer.destinations
        supervisor = status.balancer._running.supervisor
        for _ in range(5):
            supervisor.probed(destination, False, None, HOSTILE)
        for _ in range(2):
            await status.row(url, "row.innerText.includes('<img src=x onerror=')")
            await status.page.shows(f"is down ({HOSTILE})")
            assert await status.page.evaluate("document.images.length") == 0
            assert await status.page.evaluate("String(window.hit)") == "undefined"
            await status.page.send("Page.reload")


async def test_policy_blocks_what_it_should(browser: Browser) -> None:
    """An inline handler does not run, and the console tells: so the other tests would see one."""
    blocked = """window.blocked = new Promise((resolve) => {
      document.addEventListener("securitypolicyviolation", (event) => {
        if (event.effectiveDirective === "script-src-attr") resolve(event.blockedURI);
      });
    }); 0"""
    async with shown(browser, *addresses(1)) as status:
        await status.page.evaluate(blocked)
        await status.page.evaluate(f"document.body.insertAdjacentHTML('beforeend', `{HOSTILE}`)")
        assert await status.page.evaluate("window.blocked") == "inline"
        assert await status.page.evaluate("String(window.hit)") == "undefined"
        assert any("Content Security Policy" in line for line in status.page.log)
        status.page.log.clear()


async def test_destinations_come_and_go(browser: Browser) -> None:
    """In the order of the gateway, without a reload."""
    one, two, three = addresses(3)
    listed = "[...document.querySelectorAll('tbody tr')].map((row) => row.dataset.url).join()"
    async with shown(browser, one, two) as status:
        status.balancer.replace_destinations([three, one])
        await status.page.until(f"{listed} === '{three},{one}'")
        await status.page.shows("2 of 2 destinations")


async def test_paths_stay_open(browser: Browser) -> None:
    """The list of mounts is closed at first; once it is open, updates leave it so."""
    (url,) = addresses(1)
    async with shown(browser, url) as status:
        await status.page.click("summary")
        await status.page.shows("/billing to billing: HTTP, WebSocket")
        await status.page.evaluate("renew()")
        await status.page.shows("/billing to billing: HTTP, WebSocket")


async def test_condition_that_never_comes_true(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails the test with what the page shows instead."""
    monkeypatch.setattr("tests.support.browser._DEADLINE_SECONDS", 0.1)
    async with browser.page() as page:
        with pytest.raises(AssertionError, match="never true: 1 === 2; about:blank shows: "):
            await page.until("1 === 2")
