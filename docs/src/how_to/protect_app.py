from fastapi import FastAPI, HTTPException
from starlette.requests import HTTPConnection

from fastapi_proxy_di import proxy_app, proxy_lifespan

KEYS = {"s3cret"}


async def check_key(connection: HTTPConnection) -> None:
    if connection.headers.get("x-api-key") not in KEYS:
        raise HTTPException(401, "unknown key")


app = FastAPI(lifespan=proxy_lifespan)
app.mount("/billing", proxy_app("billing", guard=check_key))
