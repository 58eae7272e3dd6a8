from typing import Annotated, Any

from fastapi import Depends, FastAPI
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)


@app.post("/add")
async def add(a: int, b: int, tools: Annotated[Balancer, Depends(Upstream("tools"))]) -> Any:
    client = tools.httpx2_client
    async with (
        streamable_http_client(f"{client.base_url}mcp", http_client=client) as (read, write),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        result = await session.call_tool("add", {"a": a, "b": b})
    return result.structured_content
