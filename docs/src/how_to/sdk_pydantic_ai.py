from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)


def agent(models: Annotated[Balancer, Depends(Upstream("models"))]) -> Agent:
    client = models.httpx2_client
    provider = OpenAIProvider(api_key="unused", http_client=client, base_url=f"{client.base_url}v1")
    return Agent(OpenAIChatModel("small", provider=provider))


@app.post("/ask")
async def ask(question: str, agent: Annotated[Agent, Depends(agent)]) -> str:
    async with agent.run_stream(question) as result:
        return "".join([text async for text in result.stream_text(delta=True)])
