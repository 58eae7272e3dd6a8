"""The files of the how-to pages on calling upstreams work as their pages say."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse

from fastapi_proxy_di import Upstream
from tests.docs.conftest import Gateway, Snippet
from tests.support.models import WORDS, models
from tests.support.servers import Running, dead_port, run_app

pytestmark = pytest.mark.e2e


async def test_client_calls_the_upstream(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """An endpoint calls the upstream and returns its own response."""
    async with gateway(snippet("how_to/client.py").app) as client:
        response = await client.get("/invoices/7/summary")

    assert response.json() == {"number": 7, "total": 70}


async def test_client_streams(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """The endpoint reads one event, and then no request is in flight."""
    app = snippet("how_to/client.py").app
    async with gateway(app) as client:
        response = await client.get("/first-event")
        in_flight = [one.in_flight for one in Upstream("billing").of(app).destinations]

    assert (response.json(), in_flight) == ("data: 0", [0, 0])


async def test_client_errors_are_caught(
    snippet: Snippet,
    billing: tuple[Running, Running],
    gateway: Gateway,
) -> None:
    """The endpoint handles a status of the upstream and an upstream without destinations."""
    app = snippet("how_to/client.py").app
    async with gateway(app) as client:
        found = await client.get("/invoices/7/total")
        missing = await client.get("/invoices/1000/total")
        for one in billing:
            await Upstream("billing").of(app).drain(one.url)
        unavailable = await client.get("/invoices/7/total")

    assert (found.json(), missing.status_code) == (70, 404)
    assert (unavailable.status_code, unavailable.json()) == (
        503,
        {"detail": "billing is down for a moment"},
    )


async def test_client_maps_500_to_502(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 500 of the upstream becomes 502, not 404."""
    service = FastAPI()

    @service.get("/invoices/{number}", status_code=500)
    async def broken(number: int) -> None:
        return None

    async with run_app(service) as running:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", running.url)
        async with gateway(snippet("how_to/client.py").app) as client:
            response = await client.get("/invoices/7/total")

    assert response.status_code == 502


async def test_client_encodes_user_input_in_paths(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with special characters stays one segment of the path."""
    service = FastAPI()
    received: list[str] = []

    async def file(request: Request) -> JSONResponse:
        received.append(request.scope["raw_path"].decode() + "?" + request.url.query)
        return JSONResponse("four")

    service.add_route("/files/{name:path}", file)
    async with run_app(service) as running:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", running.url)
        async with gateway(snippet("how_to/client.py").app) as client:
            sizes = [
                (await client.get(f"/files/{name}/size")).json() for name in ("a%3Fb", "%C3%A4")
            ]
            unavailable = await client.get("/files/%2E%2E/size")

    assert sizes == [6, 6]
    assert received == ["/files/a%3Fb?", "/files/%C3%A4?"]
    assert unavailable.status_code == 404


async def test_client_handles_an_empty_stream(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint responds although the stream has no event."""
    silent = FastAPI()

    async def empty(request: Request) -> JSONResponse:
        return JSONResponse(None, status_code=204)

    silent.add_route("/events", empty)
    async with run_app(silent) as running:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", running.url)
        async with gateway(snippet("how_to/client.py").app) as client:
            response = await client.get("/first-event")

    assert response.json() == "nothing happened"


async def test_sdk_runs_on_the_upstream(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The openai package streams through the balancer."""
    async with run_app(models()) as running:
        monkeypatch.setenv("UPSTREAM_MODELS_DESTINATIONS", running.url)
        async with gateway(snippet("how_to/sdk.py").app) as client:
            response = await client.post("/ask", params={"question": "?"})

    assert response.json() == "".join(WORDS)


async def test_lease_gives_an_address(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """Another HTTP client reaches the destination that the policy picked."""
    async with gateway(snippet("how_to/lease.py").app) as client:
        response = await client.get("/vendor")

    assert response.json() == '{"status":"ok"}'


async def test_lease_counts_a_reported_failure(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reported failure counts against the destination."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"http://127.0.0.1:{dead_port()}")
    app = snippet("how_to/lease.py").app
    async with gateway(app) as client:
        response = await client.get("/vendor")
        failures = Upstream("billing").of(app).destinations[0].failures

    assert (response.status_code, failures) == (500, 1)


async def test_monolith_runs_the_app_in_the_process_or_behind_a_url(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One variable moves the app from the gateway's process to another server."""
    inner = snippet("how_to/invoices.py").app
    app = snippet("how_to/monolith.py").app
    async with gateway(app) as client:
        inside = await client.get("/invoices/7")
    async with run_app(inner) as running:
        monkeypatch.setenv("UPSTREAM_INVOICES_DESTINATIONS", running.url)
        async with gateway(app) as client:
            outside = await client.get("/invoices/7")
            urls = [one.url for one in Upstream("invoices").of(app).destinations]

    assert (inside.json(), outside.json(), urls) == (70, 70, [running.url])
