import logging

from fastapi import FastAPI

from fastapi_proxy_di import proxy_router, usage_tap


class Bill(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        used = vars(record)
        if "usage" in used:
            print(used["path"], used["usage"], used["input_tokens"] + used["output_tokens"])


access = logging.getLogger("fastapi_proxy_di.access")
access.setLevel(logging.INFO)
access.addHandler(Bill())

app = FastAPI()
app.include_router(proxy_router("models", tap=usage_tap(ask=True)), prefix="/models")
