"""The files of the how-to pages work as their pages say."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import aiohttp
import pytest
import socketio
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.exceptions import InvalidStatus

from fastapi_proxy_di import DestinationEjected, Event, Upstream
from tests.docs.conftest import SNIPPETS, Gateway, Snippet
from tests.docs.websocket_client import say
from tests.support.origins import ScriptedOrigin
from tests.support.servers import Running, dead_port, run_app

pytestmark = pytest.mark.e2e


class Recorder:
    """ASGI middleware that records the path of each request to an app."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            self.paths.append(scope["path"])
        await self.app(scope, receive, send)


async def test_protect_keeps_unknown_clients_from_the_upstream(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused client reaches no upstream, by HTTP or WebSocket."""
    upstream = Recorder(snippet("tutorial/billing_service.py").app)
    async with run_app(upstream) as running:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", running.url)
        async with gateway(snippet("how_to/protect.py").app) as client:
            without_key = await client.get("/billing/health")
            unknown = await client.get("/billing/health", headers={"authorization": "Bearer x"})
            with pytest.raises(InvalidStatus):
                await say(client, "/billing/live", "hello")
            reached = list(upstream.paths)
            ada = {"authorization": "Bearer s3cret"}
            known = await client.get("/billing/health", headers=ada)
            heard, _ = await say(client, "/billing/live", "hello", headers=ada)

    assert (without_key.status_code, unknown.status_code, reached) == (401, 401, [])
    assert (known.status_code, heard) == (200, "billing heard hello")
    assert upstream.paths == ["/health", "/live"]


async def test_protect_app_runs_the_guard_of_the_mount(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard runs for HTTP and WebSocket, and a refused client reaches no upstream."""
    upstream = Recorder(snippet("tutorial/billing_service.py").app)
    async with run_app(upstream) as running:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", running.url)
        async with gateway(snippet("how_to/protect_app.py").app) as client:
            without_key = await client.get("/billing/health")
            with pytest.raises(InvalidStatus):
                await say(client, "/billing/live", "hello")
            reached = list(upstream.paths)
            key = {"x-api-key": "s3cret"}
            known = await client.get("/billing/health", headers=key)
            heard, _ = await say(client, "/billing/live", "hello", headers=key)

    assert (without_key.status_code, without_key.json(), reached) == (
        401,
        {"detail": "unknown key"},
        [],
    )
    assert (known.status_code, heard) == (200, "billing heard hello")


async def test_litestar_mounts_an_upstream(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """Litestar's lifespan starts the upstream, and requests are forwarded."""
    async with gateway(snippet("how_to/litestar_gateway.py").app) as client:
        found = await client.get("/billing/health")

    assert found.json() == {"status": "ok"}


async def test_identify_sets_what_a_client_cannot_forge(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """The options of the mount replace the client's tenant header."""
    async with gateway(snippet("how_to/identify.py").app) as client:
        response = await client.post(
            "/billing/v2/pay", headers={"x-api-key": "key-of-ada", "x-tenant": "forged"}
        )

    assert response.json()["tenant"] == "acme"


@pytest.mark.e2e
@pytest.mark.slow
def test_test_your_app_passes_as_it_is_written() -> None:
    """The tests of the page pass; pytest finds the plugin by itself."""
    files = ["test_checkout.py", "test_checkout_async.py", "test_common.py"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--import-mode=prepend", *files],
        cwd=SNIPPETS / "how_to",
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "14 passed" in run.stdout


async def test_ready_names_the_upstream_that_is_not_ready(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """The endpoint responds with 200 if a destination is available, else with 503 and the name."""
    app = snippet("how_to/ready.py").app
    async with gateway(app) as client:
        ready = await client.get("/ready")
        for one in billing:
            await Upstream("billing").of(app).drain(one.url)
        not_ready = await client.get("/ready")

    assert ready.json() == {"status": "ready"}
    assert (not_ready.status_code, not_ready.json()["upstreams"]) == (503, ["billing"])


async def test_websockets_choose_the_subprotocol(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """The endpoint offers its own subprotocol to the upstream."""
    async with gateway(snippet("how_to/live.py").app) as client:
        heard, subprotocol = await say(
            client, "/live/7", "hello", subprotocols=["other", "billing.v1"]
        )

    assert (heard, subprotocol) == ("billing heard hello", "billing.v1")


async def test_websockets_require_a_ticket(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handshake without a valid ticket is refused and does not reach the upstream."""
    upstream = Recorder(snippet("tutorial/billing_service.py").app)
    async with run_app(upstream) as running:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", running.url)
        async with gateway(snippet("how_to/live_auth.py").app) as client:
            with pytest.raises(InvalidStatus):
                await say(client, "/billing/live", "hello")
            with pytest.raises(InvalidStatus):
                await say(client, "/billing/live?ticket=forged", "hello")
            reached = list(upstream.paths)
            heard, _ = await say(client, "/billing/live?ticket=t1cket", "hello")

    assert reached == []
    assert heard == "billing heard hello"


async def test_websockets_proxy_socketio(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polling and WebSocket of one client reach the same service of two."""
    services = [socketio.AsyncServer(async_mode="asgi") for _ in range(2)]
    served: list[int] = []

    def joins(number: int, service: socketio.AsyncServer) -> None:
        async def join(sid: str, room: str) -> str:
            served.append(number)
            return f"{service.transport(sid)} {room}"

        service.on("join", join)

    async with contextlib.AsyncExitStack() as stack:
        urls = []
        for number, service in enumerate(services):
            joins(number, service)
            app = socketio.ASGIApp(service)
            urls.append((await stack.enter_async_context(run_app(app, lifespan="off"))).url)
        monkeypatch.setenv("UPSTREAM_CHAT_DESTINATIONS", ",".join(urls))
        monkeypatch.setenv("UPSTREAM_CHAT_POLICY", "round_robin")
        monkeypatch.setenv("CHAT_KEY", "a long random text")
        front = await stack.enter_async_context(gateway(snippet("how_to/socketio_gateway.py").app))
        for _ in range(2):
            jar = aiohttp.CookieJar(unsafe=True)  # accepts cookies from IP addresses
            session = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=jar))
            chat = socketio.AsyncClient(http_session=session, reconnection=False)
            await chat.connect(str(front.base_url), socketio_path="/chat/socket.io")
            joined = await chat.call("join", "lobby")
            await chat.disconnect()
            assert joined == "websocket lobby"

    assert sorted(served) == [0, 1]


async def test_outage_page_handles_no_available_destination(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If all destinations are down and panic is off, the app's exception handler responds."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"http://127.0.0.1:{dead_port()}")
    monkeypatch.setenv("UPSTREAM_BILLING_WHEN_NONE_AVAILABLE", "fail")
    async with gateway(snippet("how_to/outage.py").app) as client:
        response = await client.get("/billing/health")

    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert response.json() == {"detail": "billing is down for a moment"}


async def test_outage_page_ejects_a_destination_that_responds_with_503(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retries hide the 503s until the destination is ejected, so no client gets one."""
    broken = FastAPI()

    @broken.get("/invoices/{number}", status_code=503)
    async def unavailable(number: int) -> None:
        return None

    @broken.get("/health")
    async def well() -> None:
        return None

    service = snippet("tutorial/billing_service.py").app
    app = snippet("how_to/outage.py").app
    events: list[Event] = []
    statuses = set()
    async with run_app(service) as good, run_app(broken) as bad:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"{good.url},{bad.url}")
        async with gateway(app) as client:
            Upstream("billing").of(app).subscribe(events.append)
            for _ in range(500):
                statuses.add((await client.get("/billing/invoices/7")).status_code)
                if events:
                    break

    assert statuses == {200}
    assert isinstance(events[0], DestinationEjected)
    assert events[0].destination == bad.url


async def test_drain_sends_no_requests_until_undrain(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """A draining destination gets no requests until it is undrained."""

    async def served_by() -> set[int]:
        responses = [await client.get("/billing/invoices/7") for _ in range(40)]
        return {response.json()["served_by"] for response in responses}

    one, two = billing
    async with gateway(snippet("how_to/drain.py").app) as client:
        await client.post("/admin/drain", params={"url": one.url})
        drained, status = await served_by(), await client.get("/admin/status")
        await client.post("/admin/undrain", params={"url": one.url})
        undrained = await served_by()
        unknown = [
            (await client.post(path, params={"url": "http://10.9.9.9"})).status_code
            for path in ("/admin/drain", "/admin/undrain")
        ]
        emptied = await client.post("/admin/drain", params={"url": one.url, "timeout": 30})

    assert (drained, undrained) == ({two.port}, {one.port, two.port})
    assert (unknown, emptied.status_code) == ([404, 404], 200)
    draining = {entry["url"]: entry["draining"] for entry in status.json()["destinations"]}
    assert draining == {one.url: True, two.url: False}


async def test_rate_limits_count_by_tenant_and_cost(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint, a proxied route and a mount are limited, each by its own rates."""
    async with ScriptedOrigin() as origin:
        for name in ("BILLING", "REPORTS"):
            monkeypatch.setenv(f"UPSTREAM_{name}_DESTINATIONS", origin.url)
        async with gateway(snippet("how_to/rate_limits.py").app) as client:
            found = [await client.get("/search?q=x") for _ in range(11)]
            proxied = await client.get("/billing/x", headers={"x-api-key": "s3cret"})
            mounted = [await client.get("/reports/x") for _ in range(21)]
            exports = [await client.get("/export") for _ in range(11)]
            internal = [
                await client.get("/export", headers={"x-api-key": "s3cret"}) for _ in range(11)
            ]

    assert [one.status_code for one in found].count(429) in {0, 1}  # a second may pass
    assert found[0].headers["ratelimit-policy"] == '"10/second";q=10;w=1, "1000/hour";q=1000;w=3600'
    assert proxied.headers["ratelimit"] == '"per tenant";r=99;t=60'
    assert proxied.headers["ratelimit-policy"] == '"per tenant";q=100;w=60'
    assert [one.status_code for one in mounted] == [200] * 20 + [429]
    assert [one.status_code for one in exports] == [200] * 10 + [429]
    assert {one.status_code for one in internal} == {200}


async def test_limits_refuse_a_large_body(
    snippet: Snippet,
    billing: tuple[Running, Running],
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A body above the limit is 413; a body at the limit is forwarded."""
    monkeypatch.setenv("UPSTREAM_BILLING_LIMITS__MAX_BODY_BYTES", "10")
    async with gateway(snippet("how_to/limits.py").app) as client:
        large = await client.post("/billing/v2/pay", content=b"x" * 11)
        fits = await client.post("/billing/v2/pay", content=b"x" * 10)

    assert (large.status_code, fits.json()["bytes"]) == (413, 10)


async def test_fallback_forwards_to_the_archive(
    snippet: Snippet,
    billing: tuple[Running, Running],
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a 404 of one upstream the client gets the response of another."""
    archive = FastAPI()

    @archive.get("/invoices/{number}")
    async def archived(number: int) -> dict[str, int]:
        return {"archived": number}

    async with run_app(archive) as running:
        monkeypatch.setenv("UPSTREAM_ARCHIVE_DESTINATIONS", running.url)
        async with gateway(snippet("how_to/fallback.py").app) as client:
            known = await client.get("/invoices/7")
            old = await client.get("/invoices/1000")

    assert known.json()["total"] == 70
    assert old.json() == {"archived": 1000}


async def test_script_prints_the_total(
    snippet: Snippet, billing: tuple[Running, Running], capsys: pytest.CaptureFixture[str]
) -> None:
    """A script can call an upstream without an app."""
    await snippet("how_to/script.py").main()

    assert capsys.readouterr().out == "70\n"


async def test_near_prefers_the_region(
    snippet: Snippet,
    billing: tuple[Running, Running],
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The custom policy picks the near region, and the far region while the near one drains."""
    far, near = billing
    monkeypatch.setenv(
        "UPSTREAM_BILLING_DESTINATIONS",
        json.dumps(
            [
                {"url": far.url, "metadata": {"region": "us"}},
                {"url": near.url, "metadata": {"region": "eu"}},
            ]
        ),
    )
    app = snippet("how_to/near.py").app
    async with gateway(app) as client:
        before = {(await client.get("/billing/invoices/7")).json()["served_by"] for _ in range(9)}
        await Upstream("billing").of(app).drain(near.url)
        after = {(await client.get("/billing/invoices/7")).json()["served_by"] for _ in range(9)}

    assert (before, after) == ({near.port}, {far.port})
