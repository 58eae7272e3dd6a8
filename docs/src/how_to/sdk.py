from typing import Annotated

from fastapi import Depends, FastAPI
from openai import AsyncOpenAI

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)


def openai_sdk(models: Annotated[Balancer, Depends(Upstream("models"))]) -> AsyncOpenAI:
    client = models.httpx2_client
    return AsyncOpenAI(
        api_key="unused",
        http_client=client,
        base_url=f"{client.base_url}v1",
        max_retries=0,
    )


@app.post("/ask")
async def ask(question: str, sdk: Annotated[AsyncOpenAI, Depends(openai_sdk)]) -> str:
    stream = await sdk.chat.completions.create(
        model="small", messages=[{"role": "user", "content": question}], stream=True
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
