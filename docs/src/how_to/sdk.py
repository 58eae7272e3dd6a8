from typing import Annotated, Any

from fastapi import Depends, FastAPI
from openai import AsyncOpenAI

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)
Models = Annotated[Balancer, Depends(Upstream("models"))]


@app.post("/ask")
async def ask(question: str, models: Models) -> str | None:
    client: Any = models.client  # openai 3 is annotated for httpx2 and also accepts httpx
    sdk = AsyncOpenAI(api_key="unused", http_client=client, base_url=client.base_url)
    completion = await sdk.chat.completions.create(
        model="small", messages=[{"role": "user", "content": question}]
    )
    return completion.choices[0].message.content
