"""Fixtures that load the files of ``docs/src`` and run them in front of real upstreams."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from starlette.types import ASGIApp

from tests.support.servers import Running, run_app

SNIPPETS = Path(__file__).parents[2] / "docs" / "src"

Snippet = Callable[[str], ModuleType]
Gateway = Callable[[ASGIApp], AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def snippet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Snippet]:
    """Give a function that loads a file of ``docs/src``, which may import other files there."""
    before = set(sys.modules)

    def load(path: str) -> ModuleType:
        file = SNIPPETS / path
        monkeypatch.syspath_prepend(str(file.parent))
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[file.stem] = module
        spec.loader.exec_module(module)
        return module

    yield load
    for name in set(sys.modules) - before:
        if str(SNIPPETS) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
async def billing(
    snippet: Snippet, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Running, Running]]:
    """Run the tutorial's service twice, and set both addresses in the environment."""
    service = snippet("tutorial/billing_service.py")
    async with run_app(service.app) as one, run_app(service.app) as two:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"{one.url},{two.url}")
        yield one, two


@pytest.fixture
def gateway() -> Gateway:
    """Give a function that runs an app under uvicorn and gives a client for it."""

    @contextlib.asynccontextmanager
    async def run(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
        async with (
            run_app(app) as running,
            httpx.AsyncClient(base_url=running.url, trust_env=False) as client,
        ):
            yield client

    return run
