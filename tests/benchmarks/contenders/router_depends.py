"""This package by `proxy_router` with one async dependency on the include."""

from fastapi import Depends, FastAPI

from fastapi_proxy_di import proxy_router
from tests.benchmarks.contenders.api_key import require_api_key

app = FastAPI()
app.include_router(proxy_router("origin"), dependencies=[Depends(require_api_key)])
