from typing import Annotated

from anthropic import AsyncAnthropic
from fastapi import Depends, FastAPI

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)


def anthropic_sdk(models: Annotated[Balancer, Depends(Upstream("models"))]) -> AsyncAnthropic:
    client = models.httpx2_client
    return AsyncAnthropic(
        api_key="unused",
        http_client=client,
        base_url=str(client.base_url),
        max_retries=0,
    )


@app.post("/ask")
async def ask(question: str, sdk: Annotated[AsyncAnthropic, Depends(anthropic_sdk)]) -> str:
    async with sdk.messages.stream(
        model="small", max_tokens=100, messages=[{"role": "user", "content": question}]
    ) as stream:
        return "".join([text async for text in stream.text_stream])
