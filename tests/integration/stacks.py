"""Stacks of middlewares that would complete a response which broke off."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware

from fastapi_proxy_di import UpstreamSettings, proxy_router
from tests.support.gateways import pass_through

STACKS: Final = ("", "base", "gzip", "base gzip", "gzip base", "base gzip base", "gzip base gzip")
"""Outermost first."""


def app_behind(stack: str, settings: UpstreamSettings) -> FastAPI:
    """Give an app that proxies ``/billing`` behind these middlewares."""
    app = FastAPI()
    app.include_router(proxy_router(settings), prefix="/billing")
    for name in reversed(stack.split()):
        if name == "base":
            app.add_middleware(BaseHTTPMiddleware, dispatch=pass_through)
        else:
            app.add_middleware(GZipMiddleware)
    return app
