"""What a page of another site can make a browser send, with the cookie of somebody logged in."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_proxy_di import Upstream, status_router
from tests.e2e.status_page.shown import IN_BROWSER, addresses
from tests.support.browser import Browser, Page
from tests.support.gateways import gateway_app, until
from tests.support.servers import run_app

pytestmark = IN_BROWSER

URL, OTHER = addresses(2)
BODY = json.dumps({"destination": URL})


def _logged_in(request: Request) -> None:
    if request.cookies.get("login") != "yes":
        raise HTTPException(401)


@dataclass
class Seen:
    """A middleware that notes what reaches the actions.

    Attributes:
        requests: Method, ``Sec-Fetch-Site``, whether the cookie is there, and the status.
    """

    app: ASGIApp
    requests: list[tuple[str, str | None, bool, int]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["path"].endswith("/drain"):
                headers = Headers(scope=scope)
                login = "login=yes" in headers.get("cookie", "")
                site = headers.get("sec-fetch-site")
                self.requests.append((scope["method"], site, login, message["status"]))
            await send(message)

        await self.app(scope, receive, noted)


@dataclass(frozen=True)
class Attack:
    """A page of somebody else, in a browser that is logged in at the gateway.

    Attributes:
        page: The page.
        target: Address of the action.
        seen: Notes what reaches the gateway.
        app: The gateway.
    """

    page: Page
    target: str
    seen: Seen
    app: FastAPI

    @property
    def draining(self) -> bool:
        """Whether the attack has worked."""
        return Upstream("billing").of(self.app).destinations[0].draining


@contextlib.asynccontextmanager
async def attack(browser: Browser) -> AsyncIterator[Attack]:
    """Log in at the gateway, then open a page of another port: same-site, so cookies are sent."""
    app = gateway_app(URL, OTHER)
    router = status_router(actions=True)
    app.include_router(router, prefix="/upstreams", dependencies=[Depends(_logged_in)])
    seen = Seen(app)
    elsewhere = FastAPI()
    elsewhere.add_api_route("/", lambda: HTMLResponse("<p>elsewhere</p>"))
    async with (
        run_app(seen) as gateway,
        run_app(elsewhere) as other,
        browser.page() as page,
    ):
        await page.send("Network.setCookie", name="login", value="yes", url=gateway.url)
        await page.go(f"{other.url}/")
        await page.shows("elsewhere")
        yield Attack(page, f"{gateway.url}/upstreams/billing/drain", seen, app)


def sending(target: str, **options: Any) -> str:
    """Give an expression that sends a request, and is true at its end."""
    chosen = json.dumps({"method": "POST", "credentials": "include", "body": BODY, **options})
    return f"fetch({json.dumps(target)}, {chosen}).then(() => true, () => true)"


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded"])
async def test_fetch_without_a_preflight(browser: Browser, media_type: str) -> None:
    """Arrives with the cookie, and is refused."""
    async with attack(browser) as elsewhere:
        options = {"mode": "no-cors", "headers": {"content-type": media_type}}
        await elsewhere.page.until(sending(elsewhere.target, **options))

        assert elsewhere.seen.requests == [("POST", "same-site", True, 403)]
        assert not elsewhere.draining


async def test_fetch_of_json(browser: Browser) -> None:
    """The browser asks first, gets no permission, and does not send it."""
    async with attack(browser) as elsewhere:
        options = {"headers": {"content-type": "application/json"}}
        await elsewhere.page.until(sending(elsewhere.target, **options))

        assert [(method, status) for method, _, _, status in elsewhere.seen.requests] == [
            ("OPTIONS", 405)
        ]
        assert not elsewhere.draining


@pytest.mark.parametrize(
    ("sandbox", "seen"),
    [
        (False, ("POST", "same-site", True, 403)),
        (True, ("POST", "cross-site", False, 401)),  # its origin is null, so it has no cookie
    ],
)
async def test_form(
    browser: Browser, sandbox: bool, seen: tuple[str, str | None, bool, int]
) -> None:
    """Whose text is JSON, in a frame."""
    name, value = BODY[:-1] + ', "x": "', '"}'
    async with attack(browser) as elsewhere:
        markup = (
            f"<form method=post enctype=text/plain action='{elsewhere.target}'>"
            f"<input name='{name}' value='{value}'></form>"
            "<script>document.forms[0].submit()</script>"
        )
        await elsewhere.page.evaluate(
            "const frame = document.createElement('iframe');"
            + ("frame.sandbox = 'allow-forms allow-scripts';" if sandbox else "")
            + f"frame.srcdoc = {json.dumps(markup)}; document.body.append(frame)"
        )
        await until(lambda: bool(elsewhere.seen.requests))

        assert elsewhere.seen.requests == [seen]
        assert not elsewhere.draining


async def test_page_itself(browser: Browser) -> None:
    """The same request from the status page works, so the ones above are not refused by chance."""
    async with attack(browser) as elsewhere:
        await elsewhere.page.go(elsewhere.target.removesuffix("billing/drain"))
        await elsewhere.page.shows(URL)
        options = {"headers": {"content-type": "application/json"}}
        await elsewhere.page.until(sending(elsewhere.target, **options))

        assert elsewhere.seen.requests == [("POST", "same-origin", True, 200)]
        assert elsewhere.draining
