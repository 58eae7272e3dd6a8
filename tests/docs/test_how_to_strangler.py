"""The page on moving an app piece by piece: a new app in front of an old one in its own process."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from fastapi_proxy_di import Upstream
from tests.docs.conftest import Gateway, Snippet
from tests.docs.websocket_client import say
from tests.e2e.servers import uvicorn
from tests.support.processes import Process

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

PUBLIC = {"host": "shop.example"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def old_app() -> AsyncIterator[Process]:
    """Run the old app once for all tests."""
    async with uvicorn("tests.docs.legacy_app:app") as process:
        yield process


@pytest.fixture
def legacy(old_app: Process, monkeypatch: pytest.MonkeyPatch) -> Process:
    """Set the address of the old app in the environment."""
    monkeypatch.setenv("UPSTREAM_LEGACY_DESTINATIONS", old_app.url)
    return old_app


async def login(client: httpx.AsyncClient, name: str) -> httpx.Response:
    """Log in at the old app, as a browser does; the client keeps the session."""
    client.cookies.clear()
    response = await client.post("/login", data={"name": name}, headers=PUBLIC)
    client.headers["cookie"] = response.headers["set-cookie"].partition(";")[0]
    return response


async def test_new_routes_are_local_and_all_others_are_the_old_app(
    snippet: Snippet, gateway: Gateway, legacy: Process
) -> None:
    """By path, by method and by protocol; only the moved route is the new app's."""
    async with gateway(snippet("how_to/strangler.py").app) as client:
        moved = await client.get("/invoices/7")
        posted = await client.post("/invoices/7")
        form = await client.get("/invoices/new")
        style = await client.get("/style.css")
        docs = [(await client.get(path)).status_code for path in ("/new/docs", "/docs")]
        heard, _ = await say(client, "/live", "hello")

    assert moved.json() == {"number": 7, "total": 70}
    assert posted.json() == {"paid": 7}
    assert (form.text, heard, docs) == ("legacy form", "legacy heard hello", [200, 404])
    assert (style.text, style.headers["content-type"]) == ("body {}", "text/css")


async def test_old_app_sees_the_public_host(
    snippet: Snippet, gateway: Gateway, legacy: Process
) -> None:
    """Its absolute redirect leads to the public host, and its cookie works behind it."""
    async with gateway(snippet("how_to/strangler.py").app) as client:
        redirect = await login(client, "ada")
        home = await client.get("/")

    assert redirect.headers["location"] == "http://shop.example/"
    assert home.text == "legacy home of ada"


async def test_routes_behind_the_mount_are_named_at_start(
    snippet: Snippet, gateway: Gateway, legacy: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """The page says that order matters, and that the app says so too."""
    module = snippet("how_to/strangler.py")
    module.app.add_api_route("/late/{number}", module.invoice)
    async with gateway(module.app) as client:
        response = await client.get("/late/7")

    assert response.status_code == 404
    assert [one.levelname for one in caplog.records if "/late/{number}" in one.getMessage()] == [
        "WARNING"
    ]


async def test_a_share_of_the_users_gets_the_new_version(
    snippet: Snippet, gateway: Gateway, legacy: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same users at each request; a cookie decides first; 0 rolls back."""
    module = snippet("how_to/strangler_rollout.py")
    names = [f"user{number}" for number in range(20)]

    async def served_new(percentage: int) -> set[str]:
        monkeypatch.setattr(module.rollout, "invoices", percentage)
        new = set()
        for name in names:
            await login(client, name)
            if "by" not in (await client.get("/invoices/7")).json():
                new.add(name)
        return new

    async with gateway(module.app) as client:
        stranger = await client.get("/invoices/7")
        shares = [await served_new(percentage) for percentage in (0, 50, 50, 100)]
        client.headers["cookie"] += "; new-invoices=off"
        tester = await client.get("/invoices/7")
        rolled_back = await served_new(0)
        client.headers["cookie"] += "; new-invoices=on"
        early = await client.get("/invoices/7")

    assert stranger.status_code == 401
    assert shares[0] == rolled_back == set()
    assert shares[1] == shares[2]
    assert 3 < len(shares[1]) < 17
    assert shares[3] == set(names)
    assert tester.json()["by"] == "legacy"
    assert early.json() == {"number": 7, "total": 70}


async def test_percentage_comes_from_a_variable(
    snippet: Snippet, legacy: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the variable, all users get the old version."""
    default = snippet("how_to/strangler_rollout.py").Rollout()
    monkeypatch.setenv("ROLLOUT_INVOICES", "10")

    assert (default.invoices, type(default)().invoices) == (0, 10)


async def test_moved_websocket_has_the_session_of_the_old_app(
    snippet: Snippet, gateway: Gateway, legacy: Process
) -> None:
    """Both apps know the user; a stranger is refused by the new app."""
    async with gateway(snippet("how_to/strangler_rollout.py").app) as client:
        with pytest.raises(InvalidStatus):
            await say(client, "/live", "hello")
        await login(client, "ada")
        session = {"cookie": client.headers["cookie"]}
        moved, _ = await say(client, "/live", "hello", headers=session)
        forwarded, _ = await say(client, "/old", "hello", headers=session)

    assert (moved, forwarded) == ("ada said hello", "legacy session of ada")


async def test_differences_are_logged(
    snippet: Snippet,
    gateway: Gateway,
    legacy: Process,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client gets the new response; equal responses and skipped requests log nothing."""
    module = snippet("how_to/strangler_compare.py")
    async with gateway(module.app) as client:
        new = await client.get("/invoices/7")
        monkeypatch.setattr(module, "SHARE", 0.0)
        await client.get("/invoices/8")
        balancer = Upstream("legacy").of(module.app)
        await module.compare(
            balancer, "/invoices/7", "", {"number": 7, "total": 70, "by": "legacy"}
        )
        await module.compare(balancer, "/plain/7", "", {})
    logged = [one.getMessage() for one in caplog.records if one.name == module.logger.name]

    assert new.json() == {"number": 7, "total": 70}
    assert [one.levelno for one in caplog.records if one.name == module.logger.name] == [
        logging.WARNING
    ] * 2
    assert logged == [
        "/invoices/7: the responses differ",
        "/plain/7: no response to compare with: JSONDecodeError",
    ]


async def test_mount_for_the_rest_leaves_other_paths_to_the_new_app(
    snippet: Snippet, gateway: Gateway, legacy: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step of the page: a prefix, also in the address, and 404 beside it."""
    monkeypatch.setenv("UPSTREAM_LEGACY_DESTINATIONS", f"{legacy.url}/invoices")
    module = snippet("how_to/strangler.py")
    app = module.FastAPI()
    app.include_router(module.proxy_router(module.LegacySettings), prefix="/invoices")
    async with gateway(app) as client:
        form, beside = await client.get("/invoices/new"), await client.get("/me")

    assert (form.text, beside.status_code) == ("legacy form", 404)
