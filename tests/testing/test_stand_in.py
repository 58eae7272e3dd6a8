"""A stand-in replaces an upstream, in plain and asynchronous tests, HTTP and WebSocket."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient

from fastapi_proxy_di import Destinations, SettingsError, Upstream, UpstreamSettings
from fastapi_proxy_di.testing import (
    Received,
    StandIn,
    Step,
    accept,
    echo,
    refuse,
    reply,
    stand_in,
)
from tests.support.gateways import until
from tests.testing.apps import gateway_app


def billing_service(log: list[str]) -> FastAPI:
    """Build a service that notes its start and end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        log.append("start")
        yield
        log.append("end")

    service = FastAPI(lifespan=lifespan)

    @service.get("/invoices/{number}")
    async def invoice(number: int) -> dict[str, int]:
        return {"number": number}

    @service.websocket("/feed")
    async def feed(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("heard " + await websocket.receive_text())
        await websocket.close()

    return service


def test_stand_in_is_an_app_for_mounts_endpoints_and_tunnels() -> None:
    """One line replaces the upstream everywhere; the lifespan of the replacing app runs."""
    app, log = gateway_app(), list[str]()

    with stand_in(app, "billing", billing_service(log)) as billing, TestClient(app) as client:
        mounted = client.get("/billing/invoices/7?full=1")
        called = client.get("/summary")
        with client.websocket_connect("/live") as live:
            live.send_text("hello")
            heard = live.receive_text()

    assert (mounted.json(), called.json(), heard) == ({"number": 7}, {"number": 7}, "heard hello")
    assert [(one.method, one.path, one.query) for one in billing.received] == [
        ("GET", "/invoices/7", "full=1"),
        ("GET", "/invoices/7", ""),
        ("GET", "/feed", ""),
    ]
    assert billing.received[2].messages == ["hello"]
    assert log == ["start", "end"]


def test_stand_in_records_headers_and_body() -> None:
    """The record has what the gateway sent."""
    app = gateway_app()

    with stand_in(app, "billing", reply()) as billing, TestClient(app) as client:
        client.post("/pay", json={"sum": 7}, headers={"X-Tenant": "acme"})

    sent = billing.received[0]
    assert (sent.destination, sent.method, sent.path) == ("billing", "POST", "/v2/pay")
    assert (sent.json(), sent.headers["x-tenant"]) == ({"sum": 7}, "acme")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_stand_in_calls_a_function(asynchronous: bool) -> None:
    """A function gets the whole request and gives content or a step."""
    app = gateway_app()

    def respond(received: Received) -> object:
        return reply("no", 402) if received.json()["sum"] > 10 else {"paid": True}

    async def respond_later(received: Received) -> object:
        await asyncio.sleep(0)
        return respond(received)

    with (
        stand_in(app, "billing", respond_later if asynchronous else respond),
        TestClient(app) as client,
    ):
        small = client.post("/pay", json={"sum": 7})
        large = client.post("/pay", json={"sum": 70})

    assert (small.status_code, small.json()) == (200, {"paid": True})
    assert (large.status_code, large.text) == (402, "no")


def test_stand_in_plays_a_script_and_repeats_its_end() -> None:
    """Each attempt takes the next step; the last one repeats."""
    app = gateway_app()
    script: list[Step] = [reply(status=201), reply(b"x", headers={"X-Turn": "2"})]

    with stand_in(app, "billing", script), TestClient(app) as client:
        responses = [client.get("/billing/x") for _ in range(3)]

    assert [one.status_code for one in responses] == [201, 200, 200]
    assert [one.headers.get("x-turn") for one in responses] == [None, "2", "2"]


def test_tried_has_the_names_of_destinations_in_order() -> None:
    """A mapping names the destinations."""
    app = gateway_app()

    with (
        stand_in(app, "billing", {"b": refuse(), "a": reply("from a")}, policy="first") as billing,
        TestClient(app) as client,
    ):
        response = client.post("/pay")

    assert (response.text, billing.tried) == ("from a", ["b", "a"])


def test_stand_in_works_without_a_lifespan() -> None:
    """Also where each request has an event loop of its own."""
    app = gateway_app()

    with stand_in(app, "billing", {"a": reply("x")}) as billing:
        client = TestClient(app)
        texts = [client.get("/billing/x").text, client.get("/billing/y").text]

    assert (texts, billing.tried) == (["x", "x"], ["a", "a"])


async def test_stand_in_works_in_async_tests() -> None:
    """The balancer runs in the test's own loop, and its app ends with it."""
    app, log = gateway_app(), list[str]()
    transport = httpx.ASGITransport(app)

    async with (
        stand_in(app, "billing", billing_service(log)) as billing,
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
    ):
        response = await client.get("/billing/invoices/7")
        balancer = await billing.balancer()

    assert (response.json(), balancer.name) == ({"number": 7}, "billing")
    assert log == ["start", "end"]
    assert app.dependency_overrides == {}


async def test_with_block_in_a_running_loop_closes_in_a_task() -> None:
    """A plain ``with`` in an async test cannot wait for the end."""
    app, log = gateway_app(), list[str]()
    with stand_in(app, "billing", billing_service(log)) as billing:
        await billing.balancer()

    await until(lambda: len(log) == 2)

    assert log == ["start", "end"]


def test_closing_while_the_client_is_open_waits_for_its_loop() -> None:
    """The balancer of the client's loop has ended when the block ends."""
    app, log = gateway_app(), list[str]()

    with TestClient(FastAPI()):
        pass
    app.dependency_overrides[Upstream("billing")] = lambda: None
    with TestClient(app) as client:
        with stand_in(app, "billing", billing_service(log)):
            client.get("/billing/invoices/7")
        ended = list(log)
        known = app.dependency_overrides[Upstream("billing")]

    assert (ended, known()) == (["start", "end"], None)


def test_closing_runs_a_loop_that_is_not_running() -> None:
    """The loop runs once more to close the balancer."""
    app, log = gateway_app(), list[str]()
    with asyncio.Runner() as runner, stand_in(app, "billing", billing_service(log)) as billing:
        runner.run(_start(billing))

    assert log == ["start", "end"]


async def _start(billing: StandIn) -> None:
    await billing.balancer()


def test_stand_in_can_be_set_as_an_override() -> None:
    """``app.dependency_overrides`` takes it."""
    app = gateway_app()
    app.dependency_overrides[Upstream("billing")] = StandIn("billing", reply("x"))

    with TestClient(app) as client:
        response = client.get("/billing/x")

    assert response.text == "x"


def test_failures_of_a_stand_in_become_problem_documents() -> None:
    """The default handler responds, on mounts and in endpoints."""
    app = gateway_app()

    with stand_in(app, "billing", refuse()), TestClient(app) as client:
        responses = [client.get("/billing/x"), client.post("/pay")]

    assert [one.status_code for one in responses] == [502, 502]
    assert {one.headers["content-type"] for one in responses} == {"application/problem+json"}


class Declared(UpstreamSettings, name="billing"):
    """An upstream with settings of its own."""

    destinations: Destinations = ["http://10.0.0.1"]
    preserve_host: bool = True


@pytest.mark.parametrize(
    ("upstream", "host"),
    [
        ("billing", "billing"),
        (Declared, "testserver"),
        (Upstream(Declared), "testserver"),
        (Declared(policy="first"), "testserver"),
    ],
)
def test_stand_in_keeps_declared_settings_and_no_environment(
    upstream: object, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings in code apply; environment variables do not."""
    monkeypatch.setenv("UPSTREAM_BILLING_POLICY", "nonsense")
    app = gateway_app()

    with stand_in(app, upstream, reply()) as billing, TestClient(app) as client:  # type: ignore[arg-type]
        client.get("/billing/x")

    assert billing.received[0].headers["host"] == host


def test_stand_in_refuses_a_source_of_another_type() -> None:
    """A ``TypeError`` is raised at once."""
    with pytest.raises(TypeError, match="is not an ASGI app, a function, a step"):
        StandIn("billing", {"a": 7})  # type: ignore[dict-item]


def test_error_for_a_mapping_suggests_reply() -> None:
    """The keys of a mapping name destinations."""
    with pytest.raises(TypeError, match=r"total: 70 is not .* write reply\(\.\.\.\)"):
        StandIn("billing", {"total": 70})  # type: ignore[dict-item]


@pytest.mark.parametrize("name", ["a b", "https://", "ftp://a", "http://a:b", "dns+http://a"])
def test_stand_in_reports_the_name_of_a_destination_that_is_no_address(name: str) -> None:
    """The error has the name, and says how to write one."""
    with pytest.raises(SettingsError) as caught:
        StandIn("billing", {"fine": reply(), name: reply()})

    assert name in str(caught.value)
    assert str(caught.value).startswith("a destination of the stand-in: ")


def test_stand_in_reports_wrong_settings_as_at_start() -> None:
    """One line for each fault, with the similar name."""
    with pytest.raises(SettingsError) as caught:
        StandIn("billing", reply(), polcy="first", timeouts={"connect": "soon"})

    title, *faults = str(caught.value).splitlines()
    assert title == "Settings are not valid:"
    assert len(faults) == 2
    assert "is not a field; did you mean 'policy'?" in "".join(faults)
    assert "timeouts.connect" in "".join(faults)


def test_stand_in_for_an_unknown_name_stops_the_app() -> None:
    """A misspelt name cannot let the real upstream respond."""
    app = gateway_app()
    with (
        stand_in(app, "billing", reply()),
        stand_in(app, "biling", reply()),
        pytest.raises(SettingsError, match=r"upstream 'biling', which .* \(it does: billing\)"),
        TestClient(app),
    ):
        pass


async def test_stand_in_has_only_its_own_destinations() -> None:
    """An address that the test did not name raises."""
    async with StandIn("billing", reply()) as billing:
        balancer = await billing.balancer()
        with pytest.raises(ValueError, match="no destination http://other; it has http://billing"):
            balancer.replace_destinations(["http://other"])

    assert repr(billing) == "<StandIn billing: billing>"


def test_stand_in_accepts_websockets() -> None:
    """Messages, subprotocol, headers and echo are steps, too."""
    app = gateway_app()
    steps = [
        accept("one", b"two", subprotocol="v1", headers={"X-Feed": "7"}, code=1001, reason="end"),
        echo(),
        accept(),
    ]

    with stand_in(app, "billing", steps) as billing, TestClient(app) as client:
        with client.websocket_connect("/live", subprotocols=["v1"]) as live:
            got = [live.receive_text(), live.receive_bytes(), live.receive()]
            chosen = live.accepted_subprotocol
        with client.websocket_connect("/live") as live:
            live.send_text("text")
            live.send_bytes(b"bytes")
            echoed = [live.receive_text(), live.receive_bytes()]
        with client.websocket_connect("/live") as live:
            live.close()

    assert (got[:2], chosen) == (["one", b"two"], "v1")
    assert got[2] == {"type": "websocket.close", "code": 1001, "reason": "end"}
    assert (echoed, billing.received[1].messages) == (["text", b"bytes"], ["text", b"bytes"])


def test_stand_in_of_a_closed_loop_is_not_kept() -> None:
    """Else the metrics of a run of tests would read the upstream of each ``asyncio.run``."""
    billing = StandIn("billing", reply())

    async def use() -> weakref.ref[object]:
        await billing.balancer()
        (running,) = (one for loop, one in billing._running.items() if not loop.is_closed())
        return weakref.ref(running.upstream.metrics)

    first, second = asyncio.run(use()), asyncio.run(use())
    gc.collect()
    dropped = first() is None
    billing.close()
    gc.collect()

    assert dropped
    assert second() is None


async def test_stand_in_that_never_ran_can_be_closed() -> None:
    """Closing does nothing then."""
    app = gateway_app()
    billing = stand_in(app, "billing", reply())

    with TestClient(app):
        pass
    await billing.aclose()

    assert (billing.tried, app.dependency_overrides) == ([], {})


def test_reply_sets_length_and_type_unless_given() -> None:
    """A 204 has neither."""
    app = gateway_app()
    steps = [
        reply({"a": 1}),
        reply({"a": 1}, headers={"Content-Type": "application/vnd.a+json"}),
        reply(status=204),
        reply("no", 416, headers={"Content-Length": "2"}),
    ]

    with stand_in(app, "billing", steps), TestClient(app) as client:
        responses = [client.get("/billing/x") for _ in steps]

    assert [one.headers.get("content-type") for one in responses] == [
        "application/json",
        "application/vnd.a+json",
        None,
        "text/plain; charset=utf-8",
    ]
    assert [one.headers.get("content-length") for one in responses] == ["8", "8", None, "2"]


async def test_stand_in_records_an_upload_in_pieces() -> None:
    """The record has the body, whether or not the app read it."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"two", b"three"):
            await asyncio.sleep(0)
            yield piece

    async with stand_in(gateway_app(), "billing", reply()) as billing:
        await (await billing.balancer()).client.post("/x", content=pieces())

    assert billing.received[0].body == b"onetwothree"
