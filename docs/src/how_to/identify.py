from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.security import APIKeyHeader

from fastapi_proxy_di import ForwardOptions, proxy_router

TENANTS = {"key-of-ada": "acme"}


def tenant(key: Annotated[str, Depends(APIKeyHeader(name="x-api-key"))]) -> ForwardOptions:
    return ForwardOptions(headers={"x-tenant": TENANTS.get(key, "guest")})


app = FastAPI()
app.include_router(proxy_router("billing", options=tenant), prefix="/billing")
