# --8<-- [start:declared]
from fastapi import FastAPI

from fastapi_proxy_di import Destinations, UpstreamSettings, proxy_router
from fastapi_proxy_di.transforms import (
    CookiePath,
    OutboundRequest,
    OutboundResponse,
    PathPrefix,
    RequestHeader,
    ResponseHeaderRemove,
    Transforms,
)


class Billing(UpstreamSettings, name="billing"):
    destinations: Destinations = ["http://127.0.0.1:9001"]
    transforms: Transforms = [
        PathPrefix(prefix="/v2"),
        RequestHeader(name="x-gateway", set="billing"),
        CookiePath(),
        ResponseHeaderRemove(name="x-powered-by", when="always"),
    ]


# --8<-- [end:declared]


# --8<-- [start:functions]
def add_tenant(request: OutboundRequest) -> None:
    tenant = request.inbound.path_params["tenant"]
    request.headers["x-tenant"] = tenant
    request.set_query("tenant", tenant)


def add_support(response: OutboundResponse) -> None:
    if response.status >= 500:
        response.headers["x-support"] = "call us"


app = FastAPI()
app.include_router(
    proxy_router(Billing, transforms=[add_tenant, add_support]), prefix="/{tenant}/billing"
)
# --8<-- [end:functions]
