from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from fastapi_proxy_di import proxy_router, status_router


def require_admin(given: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> None:
    if given.password != "s3cret":
        raise HTTPException(401)


app = FastAPI()
app.include_router(proxy_router("billing"), prefix="/billing")
app.include_router(
    status_router(actions=True), prefix="/upstreams", dependencies=[Depends(require_admin)]
)
