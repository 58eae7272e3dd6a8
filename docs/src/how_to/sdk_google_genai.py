from typing import Annotated

from fastapi import Depends, FastAPI
from google import genai
from google.genai.types import HttpOptions

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)


def genai_sdk(models: Annotated[Balancer, Depends(Upstream("models"))]) -> genai.Client:
    client = models.httpx2_client
    options = HttpOptions(base_url=str(client.base_url), httpx_async_client=client)
    return genai.Client(api_key="unused", http_options=options)


@app.post("/ask")
async def ask(question: str, sdk: Annotated[genai.Client, Depends(genai_sdk)]) -> str:
    stream = await sdk.aio.models.generate_content_stream(model="small", contents=question)
    return "".join([chunk.text or "" async for chunk in stream])
