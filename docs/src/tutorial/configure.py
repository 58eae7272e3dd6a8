from fastapi import FastAPI

from fastapi_proxy_di import (
    Destinations,
    HealthSettings,
    TimeoutSettings,
    UpstreamSettings,
    proxy_router,
)


class Billing(UpstreamSettings, name="billing"):
    destinations: Destinations = ["http://127.0.0.1:9001", "http://127.0.0.1:9002"]
    health: HealthSettings = HealthSettings(path="/health", interval=5)
    timeouts: TimeoutSettings = TimeoutSettings(connect=1)


app = FastAPI()
app.include_router(proxy_router(Billing), prefix="/billing")
