import os
import secrets
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from fastapi_proxy_di import metrics_router, proxy_router, status_router

PASSWORD = os.environ["OPERATOR_PASSWORD"].encode()


def require_operator(login: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> None:
    if not secrets.compare_digest(login.password.encode(), PASSWORD):
        raise HTTPException(401, "wrong password", {"www-authenticate": "Basic"})


operators = [Depends(require_operator)]

app = FastAPI()
app.include_router(status_router(actions=True), prefix="/upstreams", dependencies=operators)
app.include_router(metrics_router(), dependencies=operators)
app.include_router(proxy_router("billing"), prefix="/billing")
