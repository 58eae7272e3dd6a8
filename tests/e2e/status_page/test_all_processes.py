"""The page of several processes in a browser: totals of all, actions in all, who went missing."""

from __future__ import annotations

import signal
import sys

from tests.cluster.shared_gateways import A, B, shared_gateways
from tests.e2e.status_page.shown import IN_BROWSER
from tests.support.browser import Browser
from tests.support.http_client import fetch
from tests.support.processes import running
from tests.support.redis_servers import RedisServer

pytestmark = IN_BROWSER

TOTALS = "document.querySelector('.totals')"


async def test_page_of_several_processes(browser: Browser) -> None:
    """The totals come by a link, follow changes, and sort; an action says in how many it is."""
    with RedisServer() as server:
        words = (sys.executable, "-m", "tests.cluster.counting_process", server.url)
        async with (
            shared_gateways(server.url, 2) as (one, two),
            running(*words) as other,
            browser.page() as page,
        ):
            name = (await other.line(r"name (\S+):"))[1]
            await page.watch_console()
            await page.emulate(1280, 900)
            await page.go(f"http://127.0.0.1:{one.address[1]}/upstreams/?key=a%20b")
            await page.shows("3 processes share the store")
            await page.click('[data-name="billing"] [data-key="all"]')
            await page.until("location.search === '?key=a+b&all=billing'")
            await page.shows("billing in all processes")
            await page.shows("2 of 2 destinations")

            before = await page.evaluate(f"{TOTALS}.querySelectorAll('tbody tr').length")
            assert before >= 2
            for _ in range(3):
                await fetch(two.address, target="/billing/x")
            row = f"{TOTALS}.querySelector('tr[data-url=\"{A}\"]')"
            await page.until(f"{row}?.cells[3].textContent === '3'")

            await page.click(f'tr[data-url="{B}"] [data-action="drain"]')
            await page.shows(f"billing: drain {B}: done in 3 of 3 processes")
            drained = f"{TOTALS}.querySelector('tr[data-url=\"{B}\"]')"
            await page.until(f"{drained}?.cells[1].textContent === 'draining in 2'")
            assert two.balancer.destinations[1].draining

            await page.click('.totals th[data-column="3"] button')
            await page.until(f"{TOTALS}.querySelector('[aria-sort]') !== null")

            other.signal(signal.SIGKILL)
            await page.shows(f"2 processes share the store, 1 went missing: {name}")
            await page.click("#processes")
            await page.shows(f"{name} went missing, last seen")
            server.kill()
            await page.shows("The store is lost: only this process is known")
            await page.shows("The store does not have the totals at the moment")
            await page.click('[data-name="billing"] [data-key="all"]')
            await page.until("location.search === '?key=a+b'")
            await page.until(f"{TOTALS} === null")
            await page.evaluate("1")
            assert page.log == []
