from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from fastapi_proxy_di import proxy_app, proxy_lifespan, proxy_router, rate_limit

TENANTS = {"s3cret": "acme"}


# --8<-- [start:key]
def tenant(connection: HTTPConnection) -> str | None:
    return TENANTS.get(connection.headers.get("x-api-key", ""))


# --8<-- [end:key]
# --8<-- [start:endpoint]
app = FastAPI(lifespan=proxy_lifespan)


@app.get("/search", dependencies=[Depends(rate_limit("10/second", "1000/hour", key=tenant))])
async def search(q: str) -> dict[str, str]:
    return {"q": q}


# --8<-- [end:endpoint]
# --8<-- [start:proxied]
per_tenant = rate_limit("100/minute", key=tenant, name="per tenant")
app.include_router(proxy_router("billing"), prefix="/billing", dependencies=[Depends(per_tenant)])
app.mount("/reports", proxy_app("reports", guard=rate_limit("20/minute")))
# --8<-- [end:proxied]


# --8<-- [start:cost]
def cost(connection: HTTPConnection) -> int:
    return 10 if connection.url.path == "/export" else 1


def is_internal(connection: HTTPConnection) -> bool:
    return tenant(connection) == "acme"


exports = rate_limit("100/15 minutes", key=tenant, cost=cost, exempt=is_internal, name="exports")
# --8<-- [end:cost]


@app.get("/export", dependencies=[Depends(exports)])
async def export() -> None:
    pass
