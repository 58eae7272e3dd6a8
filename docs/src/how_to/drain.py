from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException

from fastapi_proxy_di import Balancer, Upstream, proxy_router

app = FastAPI()
app.include_router(proxy_router("billing"), prefix="/billing")

Billing = Annotated[Balancer, Depends(Upstream("billing"))]


@app.post("/admin/drain")
async def drain(url: str, billing: Billing, timeout: float | None = None) -> None:
    try:
        await billing.drain(url, timeout=timeout)
    except ValueError as error:
        raise HTTPException(404, str(error)) from error


@app.post("/admin/undrain")
async def undrain(url: str, billing: Billing) -> None:
    try:
        billing.undrain(url)
    except ValueError as error:
        raise HTTPException(404, str(error)) from error


@app.get("/admin/status")
async def status(billing: Billing) -> Any:
    return billing.status()
