"""The how-tos on calling upstreams do what their pages promise."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse

from fastapi_proxy_di import Upstream
from tests.docs.conftest import Gateway, Snippet
from tests.support.servers import Running, dead_port, run_app


async def test_client_calls_the_upstream(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """An endpoint asks and answers in its own words."""
    async with gateway(snippet("how_to/client.py").app) as client:
        answer = await client.get("/invoices/7/summary")

    assert answer.json() == {"number": 7, "total": 70}


async def test_client_streams(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """The first event is enough."""
    app = snippet("how_to/client.py").app
    async with gateway(app) as client:
        answer = await client.get("/first-event")
        in_flight = [one.in_flight for one in Upstream("billing").of(app).destinations]

    assert (answer.json(), in_flight) == ("data: 0", [0, 0])


async def test_client_errors_are_caught(
    snippet: Snippet,
    billing: tuple[Running, Running],
    gateway: Gateway,
) -> None:
    """A status is one kind of failure, an upstream that is away another."""
    app = snippet("how_to/client.py").app
    async with gateway(app) as client:
        found = await client.get("/invoices/7/total")
        missing = await client.get("/invoices/1000/total")
        for one in billing:
            await Upstream("billing").of(app).drain(one.url)
        away = await client.get("/invoices/7/total")

    assert (found.json(), missing.status_code) == (70, 404)
    assert (away.status_code, away.json()) == (503, {"detail": "billing is down for a moment"})


async def test_client_tells_trouble_from_an_unknown_invoice(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the upstream's 404 becomes one."""
    service = FastAPI()

    @service.get("/invoices/{number}", status_code=500)
    async def broken(number: int) -> None:
        return None

    async with run_app(service) as running:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", running.url)
        async with gateway(snippet("how_to/client.py").app) as client:
            answer = await client.get("/invoices/7/total")

    assert answer.status_code == 502


async def test_client_encodes_what_users_send(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One name stays one segment, whatever is in it."""
    service = FastAPI()
    asked: list[str] = []

    async def file(request: Request) -> JSONResponse:
        asked.append(request.scope["raw_path"].decode() + "?" + request.url.query)
        return JSONResponse("four")

    service.add_route("/files/{name:path}", file)
    async with run_app(service) as running:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", running.url)
        async with gateway(snippet("how_to/client.py").app) as client:
            sizes = [
                (await client.get(f"/files/{name}/size")).json() for name in ("a%3Fb", "%C3%A4")
            ]
            away = await client.get("/files/%2E%2E/size")

    assert sizes == [6, 6]
    assert asked == ["/files/a%3Fb?", "/files/%C3%A4?"]
    assert away.status_code == 404


async def test_client_without_events_says_so(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty stream has no first event."""
    silent = FastAPI()

    async def empty(request: Request) -> JSONResponse:
        return JSONResponse(None, status_code=204)

    silent.add_route("/events", empty)
    async with run_app(silent) as running:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", running.url)
        async with gateway(snippet("how_to/client.py").app) as client:
            answer = await client.get("/first-event")

    assert answer.json() == "nothing happened"


async def test_sdk_runs_on_the_upstream(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The openai package asks through the balancer."""
    fake = FastAPI()

    @fake.post("/chat/completions")
    async def complete(request: Request) -> JSONResponse:
        asked = await request.json()
        message = {"role": "assistant", "content": asked["messages"][0]["content"][::-1]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse(
            {
                "id": "1",
                "created": 1,
                "model": asked["model"],
                "object": "chat.completion",
                "choices": [choice],
            }
        )

    async with run_app(fake) as running:
        monkeypatch.setenv("UPSTREAM_MODELS_DESTINATIONS", running.url)
        async with gateway(snippet("how_to/sdk.py").app) as client:
            answer = await client.post("/ask", params={"question": "abc"})

    assert answer.json() == "cba"


async def test_lease_lends_an_address(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """Somebody else's client goes where the policy says."""
    async with gateway(snippet("how_to/lease.py").app) as client:
        answer = await client.get("/vendor")

    assert answer.json() == '{"status":"ok"}'


async def test_lease_is_told_of_a_failure(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts against the destination."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"http://127.0.0.1:{dead_port()}")
    app = snippet("how_to/lease.py").app
    async with gateway(app) as client:
        answer = await client.get("/vendor")
        failures = Upstream("billing").of(app).destinations[0].failures

    assert (answer.status_code, failures) == (500, 1)


async def test_monolith_runs_the_app_inside_and_splits_later(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First in the process, then, by one variable, on its own."""
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
