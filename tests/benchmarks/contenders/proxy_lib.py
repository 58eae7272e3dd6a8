"""fastapi-proxy-lib 0.3.0, mounted as its documentation says: `RouterHelper` and its lifespan."""

import os
from typing import Final

from fastapi import FastAPI
from fastapi_proxy_lib.core.http import ReverseHttpProxy  # type: ignore[import-not-found]
from fastapi_proxy_lib.core.websocket import (  # type: ignore[import-not-found]
    ReverseWebSocketProxy,
)
from fastapi_proxy_lib.fastapi.router import RouterHelper  # type: ignore[import-not-found]

_ORIGIN: Final = os.environ["BENCH_ORIGIN"]

helper = RouterHelper()
http_router = helper.register_router(ReverseHttpProxy(base_url=f"{_ORIGIN}/"))
websocket_router = helper.register_router(
    ReverseWebSocketProxy(base_url=f"{_ORIGIN.replace('http', 'ws', 1)}/")
)

app = FastAPI(lifespan=helper.get_lifespan())
app.include_router(http_router)
app.include_router(websocket_router)
