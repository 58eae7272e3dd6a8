from fastapi import FastAPI

from fastapi_proxy_di import Destinations, HealthSettings, UpstreamSettings, proxy_router


class Backend(UpstreamSettings, name="backend"):
    destinations: Destinations = ["http://localhost:8080", "http://localhost:8081"]
    policy: str = "latency"
    health: HealthSettings = HealthSettings(path="/", method="HEAD", interval=10, timeout=10)


app = FastAPI()
app.include_router(proxy_router(Backend, http=False), prefix="/ws")
app.include_router(proxy_router(Backend, websocket=False))
