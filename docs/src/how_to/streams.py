from fastapi import FastAPI

from fastapi_proxy_di import StreamSettings, UpstreamSettings, proxy_router


class Models(UpstreamSettings, name="models"):
    streams: StreamSettings = StreamSettings(
        first_event="10s", first_event_when="openai", retry=True
    )


app = FastAPI()
app.include_router(proxy_router(Models), prefix="/models")
