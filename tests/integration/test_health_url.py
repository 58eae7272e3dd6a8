"""``health_url``: probes to another address than that of requests."""

import pytest
from fastapi import FastAPI

from fastapi_proxy_di import DestinationSettings, Upstream, proxy_router
from tests.support.gateways import Billing, until
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e


async def test_probes_go_to_their_own_address_until_the_destination_leaves() -> None:
    """After the removal no connection is left."""
    async with (
        ScriptedOrigin() as serving,
        ScriptedOrigin() as probed,
        ScriptedOrigin(always(response_bytes(503))) as ill,
    ):
        settings = Billing(
            destinations=[
                DestinationSettings(url=serving.url, health_url=f"{probed.url}/admin"),
                DestinationSettings(url=f"{serving.url}/two", health_url=ill.url),
            ],
            health={"path": "/up", "interval": 0.02, "jitter": 0},
        )
        app = FastAPI()
        app.include_router(proxy_router(settings), prefix="/billing")
        async with run_app(app) as running:
            balancer = Upstream("billing").of(app)
            health = [one.healthy for one in balancer.destinations]
            reply = await fetch(running.address, target="/billing/x")
            await until(lambda: len(probed.requests) >= 3)

            balancer.replace_destinations([serving.url])
            await probed.all_left()
            await ill.all_left()
            left = [one.url for one in balancer.destinations]

    assert health == [True, False]
    assert (reply.status, left) == (200, [serving.url])
    assert {seen.target for seen in probed.requests} == {b"/admin/up"}
    assert [seen.target for seen in serving.requests if seen.target != b"/up"] == [b"/x"]
