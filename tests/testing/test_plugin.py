"""The pytest plugin and its fixtures."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from fastapi.testclient import TestClient

from fastapi_proxy_di.testing import Clock, StandInFixture, reply
from tests.testing.apps import gateway_app


def test_plugin_replaces_until_the_end_of_the_test(stand_in: StandInFixture) -> None:
    """The fixture can replace several upstreams."""
    app = gateway_app()
    billing = stand_in(app, "billing", reply({"number": 7}))

    with TestClient(app) as client:
        response = client.get("/summary")

    assert (response.json(), billing.tried) == ({"number": 7}, ["billing"])


async def test_plugin_serves_async_tests(stand_in: StandInFixture, proxy_clock: Clock) -> None:
    """The fixtures work in the running loop of the test."""
    billing = stand_in(gateway_app(), "billing", reply("x"), clock=proxy_clock)

    response = await (await billing.balancer()).client.get("/x")

    assert response.text == "x"


def test_plugin_is_registered() -> None:
    """The entry point of the package registers the plugin."""
    found = entry_points(group="pytest11")

    assert "fastapi_proxy_di.testing.pytest_plugin" in {one.value for one in found}


@pytest.mark.e2e
def test_testing_needs_no_pytest() -> None:
    """Other test runners can import the kit."""
    code = "import sys, fastapi_proxy_di.testing; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
