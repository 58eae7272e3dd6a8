import pytest
from checkout import app
from fastapi.testclient import TestClient

from fastapi_proxy_di.testing import StandInFixture, reply


@pytest.fixture(autouse=True)
def upstreams(stand_in: StandInFixture) -> None:
    stand_in(app, "billing", reply({"total": 70}))


def test_total() -> None:
    with TestClient(app) as client:
        assert client.get("/total").json() == 70


def test_another_total(stand_in: StandInFixture) -> None:
    stand_in(app, "billing", reply({"total": 80}))

    with TestClient(app) as client:
        assert client.get("/total").json() == 80
