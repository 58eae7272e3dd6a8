from fastapi import FastAPI

from fastapi_proxy_di import StreamSettings, UpstreamSettings, proxy_router


class Models(UpstreamSettings, name="models"):
    streams: StreamSettings = StreamSettings(heartbeat="15s", idle="60s")


app = FastAPI()
app.include_router(proxy_router(Models), prefix="/models")
