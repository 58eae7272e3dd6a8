from collections.abc import Sequence

from fastapi import FastAPI

from fastapi_proxy_di import (
    Destination,
    Destinations,
    DestinationSettings,
    UpstreamSettings,
    proxy_router,
)


class Near:
    """Picks the least busy destination of one region, or of all if that region has none."""

    name = "near"

    def pick(self, available: Sequence[Destination], request: object) -> Destination | None:
        near = [one for one in available if one.metadata.get("region") == "eu"]
        return min(near or available, key=lambda one: one.in_flight, default=None)


class Billing(UpstreamSettings, name="billing"):
    policy: object = Near()
    destinations: Destinations = [
        DestinationSettings(url="http://10.0.0.1:8080", metadata={"region": "eu"}),
        DestinationSettings(url="http://10.1.0.1:8080", metadata={"region": "us"}),
    ]


app = FastAPI()
app.include_router(proxy_router(Billing), prefix="/billing")
