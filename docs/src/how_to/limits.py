from fastapi import FastAPI

from fastapi_proxy_di import (
    Destinations,
    DestinationSettings,
    LimitSettings,
    UpstreamSettings,
    proxy_router,
)


class Billing(UpstreamSettings, name="billing"):
    # --8<-- [start:destinations]
    destinations: Destinations = [
        DestinationSettings(url="http://127.0.0.1:9001", weight=3),
        DestinationSettings(url="http://127.0.0.1:9002", max_in_flight=10),
    ]
    # --8<-- [end:destinations]
    limits: LimitSettings = LimitSettings(
        max_in_flight=100, queue=50, queue_timeout=0.5, max_body_bytes=10_000_000
    )


app = FastAPI()
app.include_router(proxy_router(Billing), prefix="/billing")
