# --8<-- [start:imports]
import pytest
from checkout import app
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from fastapi_proxy_di.testing import (
    Clock,
    Received,
    StandInFixture,
    Step,
    close,
    refuse,
    reply,
    reset,
    stall,
    too_many_requests,
)

# --8<-- [end:imports]


# --8<-- [start:step]
def test_total(stand_in: StandInFixture) -> None:
    stand_in(app, "billing", reply({"total": 70}))

    with TestClient(app) as client:
        assert client.get("/total").json() == 70


# --8<-- [end:step]
# --8<-- [start:app]
service = FastAPI()


@service.post("/v2/pay")
async def paid() -> dict[str, bool]:
    return {"paid": True}


def test_pay_is_forwarded(stand_in: StandInFixture) -> None:
    billing = stand_in(app, "billing", service)

    with TestClient(app) as client:
        assert client.post("/pay", json={"sum": 7}).json() == {"paid": True}

    sent = billing.received[0]
    assert (sent.method, sent.path, sent.json()) == ("POST", "/v2/pay", {"sum": 7})
    assert sent.headers["x-tenant"] == "acme"


# --8<-- [end:app]
# --8<-- [start:function]
def test_large_sums_are_refused(stand_in: StandInFixture) -> None:
    def respond(received: Received) -> object:
        return reply("too much", 402) if received.json()["sum"] > 10 else {"paid": True}

    stand_in(app, "billing", respond)

    with TestClient(app) as client:
        assert client.post("/pay", json={"sum": 7}).json() == {"paid": True}
        assert client.post("/pay", json={"sum": 70}).status_code == 402


# --8<-- [end:function]
# --8<-- [start:tried]
def test_pay_tries_the_next_destination(stand_in: StandInFixture) -> None:
    billing = stand_in(app, "billing", {"b": refuse(), "a": reply("ok")}, policy="first")

    with TestClient(app) as client:
        assert client.post("/pay").text == "ok"

    assert billing.tried == ["b", "a"]


# --8<-- [end:tried]
# --8<-- [start:faults]
@pytest.mark.parametrize(
    ("fault", "status"),
    [(refuse(), 502), (reset(), 502), (stall(), 504), (too_many_requests(7), 429)],
)
def test_pay_fails(stand_in: StandInFixture, fault: Step, status: int) -> None:
    stand_in(app, "billing", fault, timeouts={"activity": 0.1})

    with TestClient(app) as client:
        assert client.post("/pay").status_code == status


def test_live_is_closed(stand_in: StandInFixture) -> None:
    stand_in(app, "billing", close(4001, "account closed"))

    with (
        TestClient(app) as client,
        client.websocket_connect("/live") as live,
        pytest.raises(WebSocketDisconnect) as end,
    ):
        live.receive_text()

    assert end.value.code == 4001


# --8<-- [end:faults]
# --8<-- [start:clock]
def test_ejected_destination_is_readmitted(stand_in: StandInFixture, proxy_clock: Clock) -> None:
    billing = stand_in(
        app,
        "billing",
        {"a": [refuse(), reply()], "b": reply()},
        clock=proxy_clock,
        policy="first",
        ejection={"consecutive": 1, "base_time": 30},
    )

    with TestClient(app) as client:
        client.get("/billing/one")
        client.get("/billing/two")
        proxy_clock.advance(31)
        client.get("/billing/three")

    assert billing.tried == ["a", "b", "b", "a"]


def test_unhealthy_destination_gets_no_requests(stand_in: StandInFixture) -> None:
    billing = stand_in(app, "billing", {"a": reply(), "b": reply()}, policy="first")
    billing.flip("a", healthy=False)

    with TestClient(app) as client:
        client.get("/billing/one")
        billing.flip("a", healthy=True)
        client.get("/billing/two")

    assert billing.tried == ["b", "a"]


# --8<-- [end:clock]
