"""This package by `proxy_router`, which forwards everything under `/`."""

from fastapi import FastAPI

from fastapi_proxy_di import proxy_router

app = FastAPI()
app.include_router(proxy_router("origin"))
