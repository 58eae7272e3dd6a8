"""A gateway for a process of its own: its upstream is in the environment."""

from fastapi import FastAPI

from fastapi_proxy_di import proxy_router, status_router

app = FastAPI()
app.include_router(proxy_router("billing"), prefix="/billing")
app.include_router(status_router(unguarded=True), prefix="/upstreams")
