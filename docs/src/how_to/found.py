from fastapi import FastAPI

from fastapi_proxy_di import (
    Destinations,
    DestinationSettings,
    DiscoverySettings,
    UpstreamSettings,
    proxy_router,
)


class Billing(UpstreamSettings, name="billing"):
    destinations: Destinations = [
        "dns+http://billing.internal:8080",
        DestinationSettings(url="dns+http://billing.other-region:8080", tier=1),
    ]
    discovery: DiscoverySettings = DiscoverySettings(required=False)


app = FastAPI()
app.include_router(proxy_router(Billing), prefix="/billing")
