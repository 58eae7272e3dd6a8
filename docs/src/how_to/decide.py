from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from fastapi_proxy_di import ForwardOptions, proxy_router

INTERNAL_TOKENS = {"outside": "inside"}


async def internal_token(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
) -> str:
    token = INTERNAL_TOKENS.get(credentials.credentials)  # or ask your identity provider
    if token is None:
        raise HTTPException(401)
    return token


async def forward_options(
    token: Annotated[str, Depends(internal_token)],
    x_tenant: Annotated[str, Header()],
    connection: HTTPConnection,
) -> ForwardOptions:
    return ForwardOptions(
        headers={"authorization": f"Bearer {token}"},
        timeout=300 if connection.url.path.endswith("/export") else 10,
        affinity_key=x_tenant,
    )


app = FastAPI()
app.include_router(proxy_router("billing", options=forward_options), prefix="/billing")
