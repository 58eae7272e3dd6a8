from fastapi import FastAPI

from fastapi_proxy_di import UpstreamSettings, proxy_router


class Models(UpstreamSettings, name="models"):
    policy: str = "prefix"


app = FastAPI()
app.include_router(proxy_router(Models), prefix="/models")
