"""Ours by `proxy_app`, served by itself."""

from fastapi_proxy_di import proxy_app

app = proxy_app("origin")
