"""The faults of the test kit act on an app as real ones do."""

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
    """A refused, a reset and a stalled connection give different failures."""
    app = gateway_app()

    with (
        stand_in(app, "billing", fault, timeouts={"activity": 0.05}),
        TestClient(app) as client,
    ):
        response = client.post("/pay", content=b"x")

    assert (response.status_code, response.json()["failure"]) == (status, failure)


@pytest.mark.parametrize("fault", [reset(b"part"), truncate(b"part")])
async def test_fault_within_the_body_reaches_a_caller(fault: Step) -> None:
    """Reading a body that breaks off raises."""
    app = gateway_app()

    async with stand_in(app, "billing", fault) as billing:
        client = (await billing.balancer()).client
        async with client.stream("GET", "/x") as response:
            with pytest.raises(httpx.RemoteProtocolError):
                await response.aread()

    assert response.status_code == 200


def test_fault_of_a_function_may_be_a_refusal() -> None:
    """A function may give ``refuse()``."""

    def respond(received: Received) -> Step:
        return refuse()

    app = gateway_app()
    with stand_in(app, "billing", respond), TestClient(app) as client:
        status = client.get("/billing/x").status_code

    assert status == 502


def test_fault_too_many_requests_has_retry_after() -> None:
    """The settings may take the destination out for the time of ``Retry-After``."""
    app = gateway_app()

    with (
        stand_in(app, "billing", {"a": too_many_requests(7), "b": reply()}, policy="first"),
        TestClient(app) as client,
    ):
        response = client.get("/billing/x")

    assert (response.status_code, response.headers["retry-after"]) == (429, "7")


def test_fault_close_code_reaches_the_client() -> None:
    """The client gets close code 4001."""
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


def test_flip_changes_health_before_and_after_the_start() -> None:
    """Probes give the flipped health."""
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


async def test_flip_in_the_running_loop_acts_at_once() -> None:
    """In an async test the health has changed when the call returns."""
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
    clock.advance(1)

    assert (ejected, still, back) == (["http://b"], ["http://b"], ["http://a", "http://b"])


async def test_clock_sleeps_in_async_tests() -> None:
    """In the running loop of the test."""
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


def test_clock_refuses_loops_of_uvloop() -> None:
    """The clock of uvloop cannot be replaced."""
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    try:
        with pytest.raises(RuntimeError, match="uvloop loop cannot be replaced"):
            Clock().attach(loop)
    finally:
        loop.close()


def test_reply_waits_for_its_delay() -> None:
    """A delay passes by the loop's clock."""
    app = gateway_app()

    with stand_in(app, "billing", reply("late", delay=0.01)), TestClient(app) as client:
        response = client.get("/billing/x")

    assert response.text == "late"
