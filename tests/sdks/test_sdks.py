"""SDKs in their newest versions on ``Balancer.httpx2_client``: whole responses and streams."""

from __future__ import annotations

import httpx2
import pytest
from anthropic import AsyncAnthropic
from google import genai
from google.genai.types import HttpOptions
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client
from mcp.server import MCPServer
from openai import APIConnectionError, AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider

from fastapi_proxy_di import ProxyError
from tests.client.upstreams import in_flight, running
from tests.docs.conftest import Gateway, Snippet
from tests.support.models import WORDS, models
from tests.support.servers import dead_port, run_app

pytestmark = pytest.mark.e2e

TEXT = "".join(WORDS)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def tools() -> MCPServer:
    """Give an MCP server with one tool."""
    server = MCPServer("tools")
    server.add_tool(add)
    return server


@pytest.mark.parametrize(
    "name",
    [
        "how_to/sdk.py",
        "how_to/sdk_anthropic.py",
        "how_to/sdk_google_genai.py",
        "how_to/sdk_pydantic_ai.py",
    ],
)
async def test_snippet_streams_from_an_available_destination(
    name: str, snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two destinations is down; the upstream's retries reach the other one."""
    async with run_app(models()) as server:
        destinations = f"http://127.0.0.1:{dead_port()},{server.url}"
        monkeypatch.setenv("UPSTREAM_MODELS_DESTINATIONS", destinations)
        monkeypatch.setenv("UPSTREAM_MODELS_POLICY", "first")
        async with gateway(snippet(name).app) as client:
            first = await client.post("/ask", params={"question": "?"})
            again = await client.post("/ask", params={"question": "?"})

    assert (first.json(), again.json()) == (TEXT, TEXT)


async def test_mcp_snippet_calls_a_tool(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streamable HTTP: the session, its events and its end go through the upstream."""
    async with run_app(tools().streamable_http_app()) as server:
        monkeypatch.setenv("UPSTREAM_TOOLS_DESTINATIONS", server.url)
        async with gateway(snippet("how_to/sdk_mcp.py").app) as client:
            response = await client.post("/add", params={"a": 2, "b": 3})

    assert response.json() == {"result": 5}


async def test_mcp_over_server_sent_events() -> None:
    """The older transport makes its client by a factory, and closes the client at the end."""
    async with run_app(tools().sse_app()) as server, running(server.url) as balancer:
        client = balancer.httpx2_client
        async with (
            sse_client(f"{client.base_url}sse", httpx_client_factory=lambda **_: client) as streams,
            ClientSession(*streams) as session,
        ):
            await session.initialize()
            result = await session.call_tool("add", {"a": 2, "b": 3})
        after = await client.get("/nothing")

    assert result.structured_content == {"result": 5}
    assert after.status_code == 404


async def test_sdks_get_whole_responses() -> None:
    """The three APIs of models, each by its own SDK."""
    async with run_app(models()) as server, running(server.url) as balancer:
        client = balancer.httpx2_client
        base = str(client.base_url)
        openai = AsyncOpenAI(api_key="k", http_client=client, base_url=f"{base}v1")
        anthropic = AsyncAnthropic(api_key="k", http_client=client, base_url=base)
        options = HttpOptions(base_url=base, httpx_async_client=client)
        google = genai.Client(api_key="k", http_options=options)
        async with openai, anthropic:
            completion = await openai.chat.completions.create(
                model="small", messages=[{"role": "user", "content": "?"}]
            )
            message = await anthropic.messages.create(
                model="small", max_tokens=9, messages=[{"role": "user", "content": "?"}]
            )
            content = await google.aio.models.generate_content(model="small", contents="?")
        busy = in_flight(balancer)

    assert completion.choices[0].message.content == TEXT
    assert message.content[0].text == TEXT
    assert content.text == TEXT
    assert busy == 0


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google"])
async def test_pydantic_ai_runs_on_each_provider(provider: str) -> None:
    """Whole and streamed, and the client stays open."""
    async with run_app(models()) as server, running(server.url) as balancer:
        agent = Agent(_model(provider, balancer.httpx2_client))
        whole = (await agent.run("?")).output
        async with agent.run_stream("?") as result:
            parts = [part async for part in result.stream_text(delta=True, debounce_by=None)]
        after = await balancer.httpx2_client.get("/nothing")

    assert (whole, "".join(parts), after.status_code) == (TEXT, TEXT, 404)


def _model(provider: str, client: httpx2.AsyncClient) -> Model:
    base = str(client.base_url)
    if provider == "openai":
        openai = OpenAIProvider(api_key="k", http_client=client, base_url=f"{base}v1")
        return OpenAIChatModel("small", provider=openai)
    if provider == "anthropic":
        sdk = AsyncAnthropic(api_key="k", http_client=client, base_url=base)
        return AnthropicModel("small", provider=AnthropicProvider(anthropic_client=sdk))
    google = GoogleProvider(api_key="k", http_client=client, base_url=base)
    return GoogleModel("small", provider=google)


async def test_sdk_reports_a_failure_as_its_own() -> None:
    """The SDK maps httpx2's exceptions; ours is the cause."""
    async with running(f"http://127.0.0.1:{dead_port()}") as balancer:
        client = balancer.httpx2_client
        sdk = AsyncOpenAI(
            api_key="k", http_client=client, base_url=str(client.base_url), max_retries=0
        )
        with pytest.raises(APIConnectionError) as raised:
            await sdk.models.list()

    assert isinstance(raised.value.__cause__, ProxyError)


async def test_sdk_stream_that_is_left_early_frees_its_destination() -> None:
    """Leaving the SDK's stream ends the exchange."""
    async with run_app(models()) as server, running(server.url) as balancer:
        client = balancer.httpx2_client
        sdk = AsyncOpenAI(api_key="k", http_client=client, base_url=f"{client.base_url}v1")
        stream = await sdk.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "?"}], stream=True
        )
        async with stream:
            first = await anext(aiter(stream))
        busy = in_flight(balancer)

    assert (first.choices[0].delta.content, busy) == (WORDS[0], 0)
