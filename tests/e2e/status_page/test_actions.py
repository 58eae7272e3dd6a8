"""Actions by click and by keyboard alone: what they do, where the focus goes, what is said."""

from __future__ import annotations

from fastapi import FastAPI, HTTPException

from tests.e2e.status_page.shown import IN_BROWSER, Shown, addresses, row, shown
from tests.support.browser import Browser
from tests.support.servers import run_app

pytestmark = IN_BROWSER


async def focus(status: Shown, url: str, key: str) -> None:
    """Press Tab until the control of a destination has the focus."""
    focused = f"{row(url)}.contains(document.activeElement) && document.activeElement.dataset.key"
    while await status.page.evaluate(focused) != key:
        await status.page.press("Tab")


async def focused(status: Shown, url: str) -> str:
    """Give the key and the text of the control of a destination that has the focus."""
    found: str = await status.page.evaluate(
        f"{row(url)}.contains(document.activeElement)"
        " ? `${document.activeElement.dataset.key}: ${document.activeElement.textContent}` : 'none'"
    )
    return found


async def said(status: Shown, text: str) -> None:
    """Wait until the text is announced, in an element that screen readers read at each change."""
    await status.page.until(f"document.querySelector('#notice').textContent.includes({text!r})")
    assert await status.page.evaluate("document.querySelector('#notice').role") == "status"


async def test_drain_and_undrain_by_click(browser: Browser) -> None:
    """The row shows the new state, and the notice says that it is done."""
    url, other = addresses(2)
    async with shown(browser, url, other) as status:
        await status.click(url, "drain")
        await status.state(url, "draining")
        await said(status, f"billing: drain {url}: done")
        assert [one.draining for one in status.balancer.destinations] == [True, False]

        await status.click(url, "undrain")
        await status.state(url, "available")
        await said(status, f"billing: undrain {url}: done")
        assert [one.draining for one in status.balancer.destinations] == [False, False]


async def test_drain_and_undrain_by_keyboard(browser: Browser) -> None:
    """The focus stays where it is, on the button that takes the other's place."""
    url, other = addresses(2)
    async with shown(browser, other, url) as status:
        await focus(status, url, "drain")
        await status.page.press("Enter")
        await status.state(url, "draining")
        await status.row(url, "row.querySelector('[data-action=undrain]') !== null")
        assert await focused(status, url) == "drain: undrain"

        await status.page.press("Enter")
        await status.state(url, "available")
        await status.row(url, "row.querySelector('[data-action=drain]') !== null")
        assert await focused(status, url) == "drain: drain"


async def test_weight_by_keyboard(browser: Browser) -> None:
    """Enter in the field sets it; what is no weight is refused, and stays to be mended."""
    url, other = addresses(2)
    value = "row.querySelector('input').value"
    async with shown(browser, url, other) as status:
        await focus(status, url, "new weight")
        await status.page.evaluate("document.activeElement.select()")
        await status.page.type("0")
        await status.page.press("Enter")
        await said(status, f"billing: weight {url}: write a number above 0")
        assert await focused(status, url) == "new weight: "
        assert [one.weight for one in status.balancer.destinations] == [1, 1]

        await status.page.type(".25")
        await status.page.press("Enter")
        await said(status, f"billing: weight {url}: done")
        await status.row(url, "row.cells[10].textContent === '0.25'")
        await status.row(url, f"{value} === '0.25'")
        assert [one.weight for one in status.balancer.destinations] == [0.25, 1]

        await status.page.press("Tab")
        assert await focused(status, url) == "weight: set"
        await status.page.press("Enter")
        await said(status, f"billing: weight {url}: done")


async def test_written_weight_survives_updates(browser: Browser) -> None:
    """While the field has the focus, and after it has lost it."""
    url, other = addresses(2)
    value = "row.querySelector('input').value === '7'"
    async with shown(browser, url, other) as status:
        await focus(status, url, "new weight")
        await status.page.evaluate("document.activeElement.select()")
        await status.page.type("7")
        _ = status.balancer.drain(url)
        await status.state(url, "draining")
        await status.row(url, value)
        await status.page.press("Tab")
        await status.page.evaluate("renew()")
        await status.row(url, f"{value} && row.querySelector('[data-action=undrain]') !== null")
        assert await focused(status, url) == "weight: set"


async def test_probe_and_readmit(browser: Browser) -> None:
    """The button of an ejected destination is gone after it; the focus stays in the row."""
    origin = FastAPI()

    @origin.get("/health")
    async def health() -> None:
        """Be well."""

    health_settings = {"path": "/health", "interval": 60}
    async with run_app(origin) as server:
        url, other = server.url, server.url.replace("127.0.0.1", "localhost")
        async with shown(browser, url, other, health=health_settings) as status:
            await status.row(url, "row.cells[9].textContent !== '-'")
            await status.click(url, "probe")
            await said(status, f"billing: probe {url}: done")
            for _ in range(50):
                status.balancer._running.supervisor.failed(status.balancer.destinations[0], "reset")
            await status.state(url, "ejected")
            await focus(status, url, "readmit")
            await status.page.press("Enter")
            await status.state(url, "available")
            await status.row(url, "row.querySelector('[data-action=readmit]') === null")
            assert await focused(status, url) == "drain: drain"


async def test_failed_action_is_said(browser: Browser) -> None:
    """The row stays as it was; the next action may work."""
    url, other = addresses(2)
    async with shown(browser, url, other) as status:
        before = await status.page.evaluate(f"{row(url)}.outerHTML")
        status.app.state.refusal = HTTPException(403, "<b>Operators</b> only")
        await status.click(url, "drain")
        await said(status, f"billing: drain {url} failed: <b>Operators</b> only")
        assert await status.page.evaluate(f"{row(url)}.outerHTML") == before
        status.app.state.refusal = None
        await status.click(url, "drain")
        await status.state(url, "draining")
        assert all("Failed to load resource" in line for line in status.page.log)
        status.page.log.clear()


async def test_unknown_destination_is_said(browser: Browser) -> None:
    """The page shows an error if the destination has left before the click."""
    url, other = addresses(2)
    async with shown(browser, url, other) as status:
        await status.page.evaluate(f"{row(url)}.dataset.url = 'http://10.9.9.9'")
        await status.click("http://10.9.9.9", "drain")
        await said(status, "drain http://10.9.9.9 failed: ")
        assert all("Failed to load resource" in line for line in status.page.log)
        status.page.log.clear()
