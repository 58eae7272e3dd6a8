from fastapi import FastAPI

from fastapi_proxy_di import Destinations, UpstreamSettings, proxy_router


class Backend(UpstreamSettings, name="backend"):
    destinations: Destinations = ["http://localhost:8080", "http://localhost:8081"]
    policy: str = "first"


app = FastAPI()
app.include_router(proxy_router(Backend))
