"""A gateway whose status page is open in a browser."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request

from fastapi_proxy_di import Balancer, Upstream, status_router
from tests.support.browser import Browser, Page
from tests.support.chromium import needs_chromium
from tests.support.gateways import gateway_app
from tests.support.servers import run_app

__all__ = ["HOSTILE", "IN_BROWSER", "Shown", "addresses", "row", "shown"]

IN_BROWSER: Final = [
    pytest.mark.e2e,
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    needs_chromium,
]
"""The marks of tests in a browser."""
HOSTILE: Final = "<img src=x onerror=\"window.hit='yes'\">"


@dataclass(frozen=True, slots=True)
class Shown:
    """The page, and the gateway that it shows.

    Attributes:
        page: The page.
        app: The gateway.
        url: Address of the page.
    """

    page: Page
    app: FastAPI
    url: str

    @property
    def balancer(self) -> Balancer:
        """The upstream of the gateway."""
        return Upstream("billing").of(self.app)

    async def row(self, url: str, condition: str) -> None:
        """Wait until an expression with the row of a destination, ``row``, is true."""
        await self.page.until(f"(row => row !== null && {condition})({row(url)})")

    async def state(self, url: str, state: str) -> None:
        """Wait until a destination is shown in a state."""
        await self.row(url, f"row.dataset.state === '{state}' && row.innerText.includes('{state}')")

    async def click(self, url: str, action: str) -> None:
        """Click on a button of a destination."""
        await self.page.click(f'tr[data-url="{url}"] [data-action="{action}"]')


def row(url: str) -> str:
    """Give an expression for the row of a destination."""
    selector = f'tr[data-url="{url}"]'
    return f"document.querySelector({json.dumps(selector)})"


def addresses(number: int) -> list[str]:
    """Give addresses that nothing listens on."""
    return [f"http://127.1.{index // 250}.{index % 250 + 1}:9" for index in range(number)]


def _guard(request: Request) -> None:
    refusal: HTTPException | None = getattr(request.app.state, "refusal", None)
    if refusal is not None:
        raise refusal


@contextlib.asynccontextmanager
async def shown(
    browser: Browser,
    *destinations: str,
    actions: bool = True,
    width: int = 1280,
    scheme: str = "light",
    **settings: Any,
) -> AsyncIterator[Shown]:
    """Open the status page of a gateway until the end of the block.

    At the end the console of the browser is empty: no error, and nothing that the policy blocked.

    Args:
        browser: The browser.
        *destinations: Addresses of the upstream.
        actions: Whether the router has actions.
        width: Of the window, in pixels.
        scheme: The preferred colours, ``light`` or ``dark``.
        **settings: Of the upstream.
    """
    app = gateway_app(*destinations, **settings)
    guard = [Depends(_guard)]
    app.include_router(status_router(actions=actions), prefix="/upstreams", dependencies=guard)
    async with run_app(app) as running, browser.page() as page:
        await page.watch_console()
        await page.emulate(width, 900, prefers_color_scheme=scheme)
        url = f"{running.url}/upstreams/"
        await page.go(url)
        await page.shows(f"{len(destinations)} of {len(destinations)} destinations")
        yield Shown(page, app, url)
        await page.evaluate("1")  # what was written before has come
        assert page.log == []
