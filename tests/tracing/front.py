"""The first gateway of the chain: everything goes to the second one."""

from fastapi import FastAPI

from fastapi_proxy_di import proxy_router

app = FastAPI()
app.include_router(proxy_router("middle"), prefix="/m")
