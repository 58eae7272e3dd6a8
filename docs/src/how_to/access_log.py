import json
import logging

from fastapi import FastAPI

from fastapi_proxy_di import proxy_router

ATTRIBUTES = ("upstream", "destination", "attempts", "status", "sent_bytes", "total_ms", "ended_by")


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({name: getattr(record, name) for name in ATTRIBUTES}, default=str)


handler = logging.StreamHandler()
handler.setFormatter(JsonLines())
access = logging.getLogger("fastapi_proxy_di.access")
access.addHandler(handler)
access.setLevel(logging.INFO)
access.propagate = False

app = FastAPI()
app.include_router(proxy_router("billing"), prefix="/billing")
