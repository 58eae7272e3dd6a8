import json
import logging
from logging.config import dictConfig

from fastapi import FastAPI

from fastapi_proxy_di import proxy_router

ATTRIBUTES = [
    *("upstream", "destination", "method", "route", "path", "status", "failure"),
    *("ended_by", "sent_bytes", "trace_id", "span_id", "request_id"),
]


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        values = vars(record)
        line = {"time": self.formatTime(record)} | {name: values[name] for name in ATTRIBUTES}
        line["attempts"] = len(values["attempts"])
        line["duration"] = round(values["total_ms"] / 1000, 6)  # seconds
        return json.dumps(line)


dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonLines}},
        "handlers": {"access": {"class": "logging.StreamHandler", "formatter": "json"}},
        "loggers": {
            "fastapi_proxy_di.access": {
                "level": "INFO",
                "handlers": ["access"],
                "propagate": False,
            }
        },
    }
)

app = FastAPI()
app.include_router(proxy_router("billing"), prefix="/billing")
