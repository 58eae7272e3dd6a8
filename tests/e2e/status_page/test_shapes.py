"""The page in narrow and wide windows, in light and dark, on paper, without script; accessible."""

from __future__ import annotations

import json
from base64 import b64decode
from importlib.resources import files
from typing import Final

import pytest

from tests.e2e.status_page.shown import IN_BROWSER, Shown, addresses, shown
from tests.support.browser import Browser

pytestmark = IN_BROWSER

_AXE: Final = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
_LONG: Final = "http://a-destination-with-a-very-long-name-of-its-own.internal.example.com:9000"


async def violations(status: Shown, *, colours: bool = True) -> list[str]:
    """Give what axe finds: the rule and the first element; ``colours`` takes its time."""
    rules = {} if colours else {"color-contrast": {"enabled": False}}
    options = json.dumps({"resultTypes": ["violations"], "rules": rules})
    await status.page.evaluate(f"{_AXE};0")
    found: str = await status.page.evaluate(
        f"axe.run({options}).then("
        "(all) => JSON.stringify(all.violations.map("
        "(one) => `${one.id}: ${one.nodes[0].html} ${one.nodes[0].failureSummary}`)))"
    )
    texts: list[str] = json.loads(found)
    return texts


async def all_states(status: Shown, urls: list[str]) -> None:
    """Bring destinations into all states, and show a notice."""
    balancer = status.balancer
    supervisor = balancer._running.supervisor
    by_url = {one.url: one for one in balancer.destinations}
    _ = balancer.drain(urls[0])
    for _ in range(5):
        supervisor.probed(by_url[urls[1]], False, None, "status 503")
    for _ in range(50):
        supervisor.failed(by_url[urls[2]], "connect")
    await status.state(urls[2], "ejected")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("actions", [True, False])
async def test_page_is_accessible(browser: Browser, scheme: str, width: int, actions: bool) -> None:
    """Axe finds no violation, whatever the colours and the width."""
    urls = addresses(6)
    async with shown(browser, *urls, width=width, scheme=scheme, actions=actions) as status:
        await all_states(status, urls)
        if actions:
            await status.click(urls[3], "drain")
            await status.page.shows("drain http://127.1.0.4:9: done")
        await status.page.evaluate("sortBy(document.querySelector('thead th'))")
        assert await violations(status) == []
        status.page.log.clear()  # axe's own


async def test_axe_finds_violations(browser: Browser) -> None:
    """So the other tests would see one."""
    async with shown(browser, *addresses(1)) as status:
        await status.page.evaluate("document.querySelector('.actions input').ariaLabel = ''")
        await status.page.evaluate("document.querySelector('.actions input').title = ''")
        found = await violations(status)
        status.page.log.clear()

    assert [one.split(":")[0] for one in found] == ["label"]


@pytest.mark.slow
async def test_many_rows_are_accessible(browser: Browser) -> None:
    """A thousand of them; their colours are those of a few."""
    async with shown(browser, *addresses(1000)) as status:
        assert await violations(status, colours=False) == []
        status.page.log.clear()


@pytest.mark.parametrize("actions", [True, False])
async def test_nothing_is_wider_than_the_window(browser: Browser, actions: bool) -> None:
    """At any width from 320 pixels, with long addresses and reasons too; no cell is cut."""
    urls = [_LONG, *addresses(3)]
    cut = """[...document.querySelectorAll("th, td, main, button, input, select")]
        .filter((one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display
          !== "inline").map((one) => one.textContent)"""
    async with shown(browser, *urls, actions=actions) as status:
        await all_states(status, urls)
        for width in (320, 480, 768, 1024, 1200, 1216, 1280, 1920):
            await status.page.emulate(width, 900)
            wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            assert await status.page.evaluate(wide) is False, width
            assert await status.page.evaluate(cut) == [], width


async def test_colours_follow_the_preference(browser: Browser) -> None:
    """Of the whole page, its fields and scroll bars too."""
    colours = (
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    async with shown(browser, *addresses(1)) as status:
        light = await status.page.evaluate(colours)
        await status.page.emulate(1280, 900, prefers_color_scheme="dark")
        dark = await status.page.evaluate(colours)
        scheme = await status.page.evaluate("getComputedStyle(document.body).colorScheme")

    assert light == ["rgb(255, 255, 255)", "rgb(27, 31, 36)"]
    assert dark == ["rgb(13, 17, 23)", "rgb(230, 237, 243)"]
    assert scheme == "dark"


async def test_page_without_script(browser: Browser) -> None:
    """Shows the state, and no control that would do nothing."""
    url, other = addresses(2)
    async with shown(browser, url, other) as status:
        _ = status.balancer.drain(url)
        await status.page.send("Emulation.setScriptExecutionDisabled", value=True)
        await status.page.send("Page.reload")
        await status.page.until("document.querySelector('#shown').textContent === ''")
        await status.page.shows("reload it for the next")
        await status.page.shows("UTC")
        await status.page.shows("draining")
        for width in (320, 1280):
            await status.page.emulate(width, 900)
            controls = await status.page.evaluate(
                "[...document.querySelectorAll('button, input, select')]"
                ".filter((one) => one.checkVisibility()).length"
            )
            assert controls == 0
        await status.page.send("Emulation.setScriptExecutionDisabled", value=False)


async def test_page_on_paper(browser: Browser) -> None:
    """A table without controls, dark on white although the screen is dark, on one page."""
    async with shown(browser, *addresses(3), scheme="dark") as status:
        printed = await status.page.send("Page.printToPDF", preferCSSPageSize=True)
        pdf = b64decode(printed["data"])
        await status.page.send("Emulation.setEmulatedMedia", media="print")
        controls = await status.page.evaluate(
            "[...document.querySelectorAll('button, input, select')]"
            ".filter((one) => one.checkVisibility() && !one.closest('thead')).length"
        )
        layout = await status.page.evaluate(
            "getComputedStyle(document.querySelector('td')).display"
        )
        colour = await status.page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert pdf.count(b"/Type /Page\n") == 1
    assert controls == 0
    assert layout == "table-cell"
    assert colour == "rgb(255, 255, 255)"
