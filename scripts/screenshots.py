"""Take the screenshots of the status page that the documentation shows, with Chromium.

    python -m scripts.screenshots

Two upstreams of real apps get requests through a gateway; one destination does not run, and one is
drained. The addresses are replaced in the pictures, since the ports are others each time.
"""

import asyncio
import json
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import httpx
from fastapi import FastAPI

from fastapi_proxy_di import Upstream, UpstreamSettings, proxy_router, status_router
from tests.support.browser import open_browser
from tests.support.servers import dead_port, run_app

FOLDER: Final = Path(__file__).parents[1] / "docs" / "how-to" / "images"
SHOTS: Final = {
    "status-light.png": (1280, 720, "light"),
    "status-dark.png": (1280, 720, "dark"),
    "status-narrow.png": (320, 720, "light"),
}
# Stops the page, and shows other addresses.
_REPLACE: Final = """((names) => {
  looking = true;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    for (const [name, shown] of Object.entries(names)) {
      texts.currentNode.data = texts.currentNode.data.replaceAll(name, shown);
    }
  }
})"""


class Billing(UpstreamSettings, name="billing"):
    """An upstream of four destinations."""


class Search(UpstreamSettings, name="search"):
    """An upstream of two destinations."""


def origin() -> FastAPI:
    """Make a destination; some responses take longer than others."""
    app = FastAPI()

    @app.get("/health")
    async def health() -> None:
        """Be well."""

    @app.get("/{number}")
    async def respond(number: int) -> int:
        await asyncio.sleep(0.002 * (number % 9))
        return number

    return app


def gateway(billing: Sequence[str], search: Sequence[str]) -> FastAPI:
    """Make the gateway with its status page."""
    health = {"path": "/health", "fall": 1}
    app = FastAPI()
    for settings in (
        Billing(destinations=list(billing), health=health),
        Search(destinations=list(search), health=health),
    ):
        app.include_router(proxy_router(settings), prefix=f"/{settings.name}")
    app.include_router(status_router(actions=True, unguarded=True), prefix="/upstreams")
    return app


async def take(folder: Path) -> None:
    """Write the pictures.

    Args:
        folder: Where to.
    """
    async with AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(run_app(origin()))).url for _ in range(5)]
        urls.insert(2, f"http://127.0.0.1:{dead_port()}")
        app = gateway(urls[:4], urls[4:])
        server = await stack.enter_async_context(run_app(app))
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        for name in ("billing", "search"):
            for number in range(90):
                await client.get(f"{server.url}/{name}/{number}")
        await Upstream("billing").of(app).drain(urls[3], timeout=1)
        profile = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        browser = await stack.enter_async_context(open_browser(profile))
        page = await stack.enter_async_context(browser.page())
        await page.go(f"{server.url}/upstreams/")
        await page.until("document.querySelector('.unhealthy') !== null")
        hosts = [url.removeprefix("http://") for url in urls]
        names = {host: f"10.0.0.{number}:8000" for number, host in enumerate(hosts, 11)}
        for number, host in enumerate(hosts, 11):  # as Python's errors name an address
            names["'127.0.0.1', " + host.partition(":")[2]] = f"'10.0.0.{number}', 8000"
        await page.evaluate(f"{_REPLACE}({json.dumps(names)})")
        for name, (width, height, scheme) in SHOTS.items():
            await page.emulate(width, height, prefers_color_scheme=scheme)
            (folder / name).write_bytes(await page.screenshot())


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    asyncio.run(take(FOLDER))
