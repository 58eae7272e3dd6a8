"""An SDK that runs on the upstream's clients."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.upstreams import running
from tests.support.models import WORDS, models
from tests.support.servers import run_app


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["client", "httpx2_client"])
async def test_client_serves_the_openai_sdk(name: str) -> None:
    """The openai package is built on httpx2 and takes httpx as well; streaming and not."""
    # Here, as its import takes every process that collects this file a second.
    from openai import AsyncOpenAI

    question: Any = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
    async with run_app(models()) as server, running(server.url) as balancer:
        client: Any = getattr(balancer, name)
        base_url = f"{client.base_url}v1"
        async with AsyncOpenAI(api_key="k", http_client=client, base_url=base_url) as sdk:
            whole = await sdk.chat.completions.create(**question)
            stream = await sdk.chat.completions.create(**question, stream=True)
            parts = [part.choices[0].delta.content async for part in stream]
        after = await client.get("/nothing")

    assert whole.choices[0].message.content == "".join(WORDS)
    assert parts == [*WORDS, None]
    assert after.status_code == 404
