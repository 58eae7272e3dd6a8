"""Queries are forwarded byte for byte."""

import pytest

from tests.support.gateways import gateway
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    "query",
    [
        "a=1&a=2&b=&c",
        "a=%20+b",
        "a;b;c=1",
        "a=%zz&%",
        "q=what?now/../then",
        "a[]=1&a[0][b]=2",
        "=&&=",
        "a=%00%0A%0d",
        "a=%E9&b=%c3%A9",
        "redirect=https://other.example/x?y=z",
        "a=b:c@d!$'()*,",
    ],
)
async def test_query_is_sent_unchanged(query: str) -> None:
    """No pair is parsed, merged, sorted or encoded again."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await fetch(gate.address, target=f"/billing/x?{query}")

    assert origin.request.target == f"/x?{query}".encode()


async def test_query_follows_the_mount_without_a_slash() -> None:
    """Also the query of a mount without a slash is forwarded."""
    router = {"bare_mount": "forward"}
    async with ScriptedOrigin() as origin, gateway(origin.url, router=router) as gate:
        response = await fetch(gate.address, target="/billing?a=1")

    assert response.status == 200
    assert origin.request.target == b"/?a=1"
