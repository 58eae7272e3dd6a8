from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from fastapi_proxy_di import (
    EjectionSettings,
    HealthSettings,
    NoAvailableDestination,
    RetrySettings,
    UpstreamSettings,
    proxy_router,
)


class Billing(UpstreamSettings, name="billing"):
    health: HealthSettings = HealthSettings(path="/health", interval=2, fall=2, rise=1)
    retries: RetrySettings = RetrySettings(attempts=2, statuses=[502, 503])
    ejection: EjectionSettings = EjectionSettings(statuses=[502, 503])


app = FastAPI()
app.include_router(proxy_router(Billing), prefix="/billing")


@app.exception_handler(NoAvailableDestination)
async def upstream_is_down(request: Request, error: NoAvailableDestination) -> JSONResponse:
    return JSONResponse(
        {"detail": f"{error.upstream} is down for a moment"},
        status_code=503,
        headers={"retry-after": "5"},
    )
