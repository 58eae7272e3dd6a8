"""A thousand destinations: found, sorted and filtered; an update moves nothing."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.status_page.shown import IN_BROWSER, Shown, addresses, shown
from tests.support.browser import Browser

pytestmark = IN_BROWSER

MANY = addresses(1000)
_VISIBLE = (
    "JSON.stringify([...document.querySelectorAll('tbody tr:not([hidden])')]"
    ".map((row) => row.dataset.url))"
)


async def visible(status: Shown) -> list[str]:
    """Give the addresses of the rows that are shown, in their order."""
    found: list[str] = json.loads(await status.page.evaluate(_VISIBLE))
    return found


async def choose(status: Shown, state: str) -> None:
    """Filter by a state."""
    await status.page.evaluate(
        f"document.querySelector('#state').value = '{state}';"
        "document.querySelector('#state').dispatchEvent(new Event('change'))"
    )


async def test_search_filter_and_sort(browser: Browser) -> None:
    """By parts of the address and by state; the sort is stable, and numbers in it are numbers."""
    async with shown(browser, *MANY) as status:
        for url in (MANY[7], MANY[3]):
            _ = status.balancer.drain(url)
        await status.state(MANY[3], "draining")
        await choose(status, "draining")
        assert await visible(status) == [MANY[3], MANY[7]]
        await choose(status, "")

        await status.page.click("#search")
        await status.page.type("127.1.2.11")
        assert await visible(status) == [url for url in MANY if "127.1.2.11" in url]
        await status.page.shows("11 of 1000 destinations")
        await status.page.evaluate("document.querySelector('#search').value = ''; arrange()")

        state = "thead th[data-column='1'] button"
        address = "thead th[data-column='0'] button"
        rest = [url for url in MANY if url not in (MANY[3], MANY[7])]
        await status.page.click(state)
        assert await visible(status) == [MANY[3], MANY[7], *rest]
        await status.page.click(state)
        assert await visible(status) == [*rest, MANY[3], MANY[7]]
        await status.page.click(state)
        assert await visible(status) == MANY
        await status.page.click(address)
        await status.page.click(address)
        assert await visible(status) == MANY[::-1]
        assert (
            await status.page.evaluate(
                "[...document.querySelectorAll('[aria-sort]')].map((one) => one.ariaSort).join()"
            )
            == "descending"
        )


async def test_update_moves_nothing(browser: Browser) -> None:
    """Neither the rows nor the scrolling nor the focus, although cells change."""
    async with shown(browser, *MANY) as status:
        watched = f'tr[data-url="{MANY[500]}"]'
        measure = f"""(() => {{
          const box = document.querySelector({json.dumps(watched)}).getBoundingClientRect();
          return [scrollY, box.top, box.left, box.height, document.documentElement.scrollHeight,
            document.activeElement.ariaLabel];
        }})()"""
        await status.page.evaluate(
            f"document.querySelector({json.dumps(watched + ' [data-action=probe]')}).focus()"
        )
        before: list[Any] = await status.page.evaluate(measure)
        status.balancer.configure_destination(MANY[2], weight=12345.75)
        _ = status.balancer.drain(MANY[1])
        await status.state(MANY[1], "draining")
        await status.row(MANY[2], "row.cells[10].textContent === '12345.75'")
        # The list of events below the table has a line more.
        after: list[Any] = await status.page.evaluate(measure)

        assert before[0] > 1000
        assert before[-1] == f"probe {MANY[500]}"
        assert (after[:4], after[5]) == (before[:4], before[5])


async def test_update_is_quick(browser: Browser) -> None:
    """The page is blocked for a moment only; the bound is for busy machines."""
    async with shown(browser, *MANY) as status:
        longest: float = await status.page.evaluate("""(async () => {
          const tasks = [];
          const seen = new PerformanceObserver((list) => tasks.push(...list.getEntries()));
          seen.observe({ type: "longtask" });
          for (let round = 0; round < 3; round += 1) await renew();
          await new Promise((resolve) => setTimeout(resolve));
          tasks.push(...seen.takeRecords());
          return Math.max(0, ...tasks.map((one) => one.duration));
        })()""")

    assert longest < 3000


async def test_row_with_the_focus_stays(browser: Browser) -> None:
    """Filters and sorting do not move or hide the row while the focus is in it."""
    async with shown(browser, *addresses(20)) as status:
        url = addresses(20)[5]
        await choose(status, "available")
        await status.page.click("thead th[data-column='1'] button")
        await status.click(url, "drain")
        await status.state(url, "draining")
        assert await visible(status) == addresses(20)
        await status.page.click("h1")
        await status.page.evaluate("document.activeElement.blur(); arrange()")
        assert await visible(status) == [one for one in addresses(20) if one != url]
