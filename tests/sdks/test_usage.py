"""The SDKs of OpenAI and Anthropic through a mount that accounts for tokens."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from fastapi import FastAPI
from openai import AsyncOpenAI

from fastapi_proxy_di import UpstreamSettings, proxy_router, usage_tap
from tests.support.models import WORDS, models
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e

TEXT = "".join(WORDS)


class Models(UpstreamSettings, name="models"):
    """Settings of the upstream."""


async def test_sdks_read_their_streams_and_their_usage_is_in_the_records(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """OpenAI's is asked for, streaming and not; the text is as without the mount."""
    caplog.set_level(logging.INFO, "fastapi_proxy_di.access")
    async with run_app(models()) as server:
        app = FastAPI()
        router = proxy_router(Models(destinations=[server.url]), tap=usage_tap(ask=True))
        app.include_router(router, prefix="/models")
        async with run_app(app) as gate:
            url = f"{gate.url}/models"
            question: Any = {"role": "user", "content": "?"}
            async with AsyncOpenAI(base_url=f"{url}/v1", api_key="x") as openai:
                chat = await openai.chat.completions.create(
                    model="small", messages=[question], stream=True
                )
                choices = [chunk.choices async for chunk in chat]
                assert "".join(one[0].delta.content or "" for one in choices if one) == TEXT
            async with (
                AsyncAnthropic(base_url=url, api_key="x") as anthropic,
                anthropic.messages.stream(
                    model="small", messages=[question], max_tokens=9
                ) as stream,
            ):
                assert "".join([text async for text in stream.text_stream]) == TEXT
    records = [vars(one) for one in caplog.records if one.name == "fastapi_proxy_di.access"]
    names = ("input_tokens", "output_tokens", "usage")
    assert [tuple(one[name] for name in names) for one in records] == [
        (2, 3, "exact"),
        (1, 1, "exact"),
    ]
