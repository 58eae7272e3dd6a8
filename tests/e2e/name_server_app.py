"""A gateway whose name server is silent about ``dead.test``, and knows ``alive.test``."""

from __future__ import annotations

import socket
import threading
from typing import Any

from fastapi import FastAPI

from fastapi_proxy_di import proxy_router

__all__ = ["app"]

_getaddrinfo = socket.getaddrinfo


def _look_up(host: Any, port: Any, *args: Any, **options: Any) -> Any:
    if not options.get("flags", 0) & socket.AI_NUMERICHOST:
        if host == "dead.test":
            threading.Event().wait()
        if host == "alive.test":
            host = "127.0.0.1"
    return _getaddrinfo(host, port, *args, **options)


setattr(socket, "getaddrinfo", _look_up)  # noqa: B010 - mypy allows no assignment

app = FastAPI()
app.include_router(proxy_router("dead"), prefix="/dead")
app.include_router(proxy_router("alive"), prefix="/alive")
