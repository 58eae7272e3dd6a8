"""This package by `proxy_app`, served alone."""

from fastapi_proxy_di import proxy_app

app = proxy_app("origin")
