from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from fastapi_proxy_di import proxy_router

USERS = {"s3cret": "ada"}


def require_user(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
) -> str:
    user = USERS.get(credentials.credentials)
    if user is None:
        raise HTTPException(401, "unknown token", {"WWW-Authenticate": "Bearer"})
    return user


app = FastAPI()
app.include_router(
    proxy_router("billing"),
    prefix="/billing",
    dependencies=[Depends(require_user)],
)
