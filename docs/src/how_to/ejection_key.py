from fastapi import FastAPI

from fastapi_proxy_di import (
    EjectionSettings,
    RetrySettings,
    UpstreamSettings,
    proxy_router,
)


class Models(UpstreamSettings, name="models"):
    ejection: EjectionSettings = EjectionSettings(key="header:authorization")
    retries: RetrySettings = RetrySettings(refused_statuses="429")


app = FastAPI()
app.include_router(proxy_router(Models), prefix="/models")
