import os
import secrets
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from fastapi_proxy_di import proxy_router, status_router

PASSWORD = os.environ["OPERATOR_PASSWORD"]


def require_operator(user: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> None:
    if not secrets.compare_digest(user.password.encode(), PASSWORD.encode()):
        raise HTTPException(401, "Wrong password", {"WWW-Authenticate": "Basic"})


app = FastAPI()
app.include_router(
    status_router(actions=True),
    prefix="/upstreams",
    dependencies=[Depends(require_operator)],
)
app.include_router(proxy_router("billing"), prefix="/billing")
