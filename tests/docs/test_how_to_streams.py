"""Event streams, as the how-to describes them."""

from __future__ import annotations

import json
import logging

import httpx
import pytest

from tests.docs.conftest import Gateway, Snippet
from tests.support.engines import engine
from tests.support.origins import ScriptedOrigin

pytestmark = pytest.mark.e2e


def chunk_of(**delta: str) -> bytes:
    """Give an event of OpenAI's chat."""
    return b"data: %b\n\n" % json.dumps({"choices": [{"delta": delta}]}).encode()


async def test_model_server_that_reports_an_error_is_left_for_another(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the chunk with the role, before any content; the POST has its body again."""
    role, text = chunk_of(role="assistant"), chunk_of(content="hello")
    overloaded = engine(role, b'data: {"error": {"message": "overloaded"}}\n\n', then="stall")
    async with (
        ScriptedOrigin(overloaded) as bad,
        ScriptedOrigin(engine(role, text)) as good,
    ):
        monkeypatch.setenv("UPSTREAM_MODELS_DESTINATIONS", f"{bad.url},{good.url}")
        monkeypatch.setenv("UPSTREAM_MODELS_POLICY", "first")
        async with gateway(snippet("how_to/streams.py").app) as client:
            response = await client.post("/models/v1/chat/completions", json={"stream": True})

    assert response.content == role + text
    assert bad.request.body == good.request.body != b""


async def test_function_decides_on_the_first_event(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event ``failed`` leads to another destination, after one that says nothing."""
    row = b"event: row\ndata: 1\n\n"
    async with (
        ScriptedOrigin(engine(b"data: begins\n\n", b"event: failed\ndata: no\n\n")) as bad,
        ScriptedOrigin(engine(b"data: begins\n\n", row)) as good,
    ):
        monkeypatch.setenv("UPSTREAM_REPORTS_DESTINATIONS", f"{bad.url},{good.url}")
        monkeypatch.setenv("UPSTREAM_REPORTS_POLICY", "first")
        async with gateway(snippet("how_to/streams_rule.py").app) as client:
            response = await client.get("/reports/today")

    assert response.content == b"data: begins\n\n" + row
    assert (len(bad.requests), len(good.requests)) == (1, 1)


async def test_heartbeats_are_as_long_apart_as_described(snippet: Snippet) -> None:
    """The snippet's settings are those of the text."""
    streams = snippet("how_to/streams_pace.py").Models(destinations="http://10.0.0.1").streams

    assert (streams.heartbeat, streams.idle) == (15, 60)


async def test_tap_counts_events_of_tenants(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a header of the request, and the responses that broke off."""
    module = snippet("how_to/streams_tap.py")
    async with ScriptedOrigin(engine(b"data: 1\n\n", b"data: 2\n\n", then="close")) as origin:
        monkeypatch.setenv("UPSTREAM_MODELS_DESTINATIONS", origin.url)
        async with gateway(module.app) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/models/x", headers={"x-tenant": "blue"})

    assert (module.events_of_tenants, module.cut_off) == ({"blue": 2}, {"blue": 1})


async def test_usage_is_asked_for_and_shown(
    snippet: Snippet,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the access records of the mount."""
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    last = b"data: %b\n\n" % json.dumps(usage).encode()
    path = "/models/v1/chat/completions"
    caplog.set_level(logging.INFO, "fastapi_proxy_di.access")  # and back after the test
    access = logging.getLogger("fastapi_proxy_di.access")
    async with ScriptedOrigin(engine(chunk_of(content="hello"), last)) as origin:
        monkeypatch.setenv("UPSTREAM_MODELS_DESTINATIONS", origin.url)
        handlers = list(access.handlers)
        module = snippet("how_to/streams_usage.py")
        try:
            async with gateway(module.app) as client:
                await client.post(path, json={"stream": True})
        finally:
            access.handlers[:] = handlers

    assert json.loads(origin.request.body)["stream_options"] == {"include_usage": True}
    assert capsys.readouterr().out == f"{path} exact 10\n"
