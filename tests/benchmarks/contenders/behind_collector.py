"""The proxied route with its metrics for Prometheus, which nobody asks for during the load."""

from fastapi import FastAPI
from prometheus_client import REGISTRY

from fastapi_proxy_di import proxy_collector, proxy_router

app = FastAPI()
app.include_router(proxy_router("origin"))
REGISTRY.register(proxy_collector(app))
