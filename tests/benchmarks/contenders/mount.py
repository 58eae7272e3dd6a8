"""This package by `proxy_app`, mounted in a FastAPI app that forwards everything under `/`."""

from fastapi import FastAPI

from fastapi_proxy_di import proxy_app, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)
app.mount("/", proxy_app("origin"))
