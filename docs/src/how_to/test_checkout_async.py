import httpx
from checkout import app

from fastapi_proxy_di.testing import reply, stand_in


async def test_total_in_the_event_loop_of_the_test() -> None:
    gateway = httpx.ASGITransport(app)
    async with (
        stand_in(app, "billing", reply({"total": 70})),
        httpx.AsyncClient(transport=gateway, base_url="http://gateway") as client,
    ):
        assert (await client.get("/total")).json() == 70
