from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from fastapi_proxy_di import ForwardOptions, proxy_router

INSIDE = {"outside": "inside"}


async def exchanged(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
) -> str:
    token = INSIDE.get(credentials.credentials)  # or ask your identity provider
    if token is None:
        raise HTTPException(401)
    return token


async def choose(
    token: Annotated[str, Depends(exchanged)],
    x_tenant: Annotated[str, Header()],
    connection: HTTPConnection,
) -> ForwardOptions:
    return ForwardOptions(
        headers={"authorization": f"Bearer {token}"},
        timeout=300 if connection.url.path.endswith("/export") else 10,
        affinity_key=x_tenant,
    )


app = FastAPI()
app.include_router(proxy_router("billing", options=choose), prefix="/billing")
