"""Each fault on demand does to an app what the real one does."""

from __future__ import annotations

import httpx
import pytest
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from fastapi_proxy_di.testing import (
    Clock,
    Received,
    Step,
    close,
    refuse,
    reply,
    reset,
    stall,
    stand_in,
    too_many_requests,
    truncate,
)
from tests.testing.apps import gateway_app


@pytest.mark.parametrize(
    ("fault", "status", "failure"),
    [
        (refuse(), 502, "connect"),
        (reset(), 502, "response_head"),
        (stall(), 504, "activity_timeout"),
    ],
)
def test_fault_before_the_head_becomes_a_problem(fault: Step, status: int, failure: str) -> None:
    """Refused, reset and stalled are told apart."""
    app = gateway_app()

    with (
        stand_in(app, "billing", fault, timeouts={"activity": 0.05}),
        TestClient(app) as client,
    ):
        answer = client.post("/pay", content=b"x")

    assert (answer.status_code, answer.json()["failure"]) == (status, failure)


@pytest.mark.parametrize("fault", [reset(b"part"), truncate(b"part")])
async def test_fault_within_the_body_reaches_a_caller(fault: Step) -> None:
    """A body that breaks off raises where it is read."""
    app = gateway_app()

    async with stand_in(app, "billing", fault) as billing:
        client = (await billing.balancer()).client
        async with client.stream("GET", "/x") as answer:
            with pytest.raises(httpx.RemoteProtocolError):
                await answer.aread()

    assert answer.status_code == 200


def test_fault_of_a_function_may_be_a_refusal() -> None:
    """A function may say refuse() as well."""

    def answer(received: Received) -> Step:
        return refuse()

    app = gateway_app()
    with stand_in(app, "billing", answer), TestClient(app) as client:
        status = client.get("/billing/x").status_code

    assert status == 502


def test_fault_too_many_requests_has_retry_after() -> None:
    """A 429 tells when, and takes its destination out for so long where settings say so."""
    app = gateway_app()

    with (
        stand_in(app, "billing", {"a": too_many_requests(7), "b": reply()}, policy="first"),
        TestClient(app) as client,
    ):
        answer = client.get("/billing/x")

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


def test_fault_close_code_reaches_the_client() -> None:
    """A close with 4001 arrives as such."""
    app = gateway_app()

    with (
        stand_in(app, "billing", close(4001, "go away")),
        TestClient(app) as client,
        client.websocket_connect("/live") as live,
        pytest.raises(WebSocketDisconnect) as left,
    ):
        live.receive_text()

    assert (left.value.code, left.value.reason) == (4001, "go away")


def test_fault_refused_handshake_reaches_the_client() -> None:
    """A step for HTTP refuses a handshake."""
    app = gateway_app()

    with (
        stand_in(app, "billing", reply("no", 403)),
        TestClient(app) as client,
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect("/live"),
    ):
        raise AssertionError  # pragma: no cover

    assert (denied.value.status_code, denied.value.text) == (403, "no")


def test_health_flips_on_demand_before_and_while_it_runs() -> None:
    """Probes find what the test says."""
    app = gateway_app()

    with stand_in(
        app, "billing", {"a": reply(), "b": reply()}, health={"path": "/health"}
    ) as billing:
        billing.flip("a", healthy=False)
        with TestClient(app) as client:
            before = client.get("/available").json()
            billing.flip("b", healthy=False)
            none = client.get("/available").json()
            billing.flip(healthy=True)
            after = client.get("/available").json()

    assert (before, none, after) == (["http://b"], [], ["http://a", "http://b"])
    assert billing.received == []


async def test_health_flips_at_once_in_the_own_loop() -> None:
    """In an async test the flip holds when the call returns."""
    async with stand_in(gateway_app(), "billing", {"a": reply(), "b": reply()}) as billing:
        balancer = await billing.balancer()
        billing.flip("a", healthy=False)
        left = [one.url for one in balancer.available]

    assert left == ["http://b"]


def test_clock_ends_an_ejection() -> None:
    """Half a minute passes between two requests."""
    app, clock = gateway_app(), Clock()
    settings = {"ejection": {"consecutive": 1, "base_time": 30}, "policy": "first"}

    with (
        stand_in(app, "billing", {"a": refuse(), "b": reply()}, clock=clock, **settings),
        TestClient(app) as client,
    ):
        client.get("/billing/x")
        ejected = client.get("/available").json()
        clock.advance(29)
        still = client.get("/available").json()
        clock.advance(2)
        back = client.get("/available").json()
    clock.advance(1)  # nobody is there any more to see it

    assert (ejected, still, back) == (["http://b"], ["http://b"], ["http://a", "http://b"])


async def test_clock_passes_within_async_tests() -> None:
    """The same in a test's own loop."""
    clock = Clock()
    settings = {"ejection": {"consecutive": 1, "base_time": 30}, "policy": "first"}

    async with stand_in(
        gateway_app(), "billing", {"a": refuse(), "b": reply()}, clock=clock, **settings
    ) as billing:
        balancer = await billing.balancer()
        clock.attach(next(iter(clock.loops)))
        await balancer.client.get("/x")
        ejected = len(balancer.available)
        await clock.sleep(31)
        with pytest.raises(RuntimeError, match=r"await clock\.sleep"):
            clock.advance(1)

    assert (ejected, len(balancer.available)) == (1, 2)


def test_clock_says_which_loops_it_cannot_move() -> None:
    """The clock of uvloop is its own."""
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    try:
        with pytest.raises(RuntimeError, match="uvloop loop cannot be replaced"):
            Clock().attach(loop)
    finally:
        loop.close()


def test_reply_takes_its_time() -> None:
    """A delay passes by the loop's clock."""
    app = gateway_app()

    with stand_in(app, "billing", reply("late", delay=0.01)), TestClient(app) as client:
        answer = client.get("/billing/x")

    assert answer.text == "late"
