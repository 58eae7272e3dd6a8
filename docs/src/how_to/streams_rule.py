from fastapi import FastAPI

from fastapi_proxy_di import SseEvent, StreamSettings, UpstreamSettings, proxy_router


def first_row(event: SseEvent) -> bool | None:
    if event.event == "failed":
        return False  # try another destination
    return True if event.event == "row" else None  # None: wait for the next event


class Reports(UpstreamSettings, name="reports"):
    streams: StreamSettings = StreamSettings(first_event="30s", first_event_when=first_row)


app = FastAPI()
app.include_router(proxy_router(Reports), prefix="/reports")
