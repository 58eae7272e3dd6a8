"""Apps that tests use as ``asgi://`` destinations."""

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI


@contextlib.asynccontextmanager
async def _fail(_: FastAPI) -> AsyncIterator[None]:
    raise RuntimeError("the inner app is broken")
    yield


fails_at_start = FastAPI(lifespan=_fail)


@contextlib.asynccontextmanager
async def _fail_with_text(_: FastAPI) -> AsyncIterator[None]:
    raise RuntimeError("a\r\nb \x1b]0;title\x07 \x9b31m \u202e \u2028 \x00" + "x" * 10_000)
    yield


fails_with_text = FastAPI(lifespan=_fail_with_text)
"""Fails with a text that would write log lines, colour a terminal and fill a log."""
