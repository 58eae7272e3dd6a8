from fastapi import Depends, FastAPI

from fastapi_proxy_di import proxy_router, upstreams_ready

app = FastAPI()


@app.get("/live")
async def live() -> dict[str, str]:
    return {"status": "live"}


@app.get("/ready", dependencies=[Depends(upstreams_ready("billing"))])
async def ready() -> dict[str, str]:
    return {"status": "ready"}


app.include_router(proxy_router("billing"), prefix="/billing")
