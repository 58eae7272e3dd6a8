from typing import Annotated

from fastapi import Depends, FastAPI

from fastapi_proxy_di import Balancer, Destinations, Upstream, UpstreamSettings, proxy_router


class LegacySettings(UpstreamSettings, name="legacy"):
    destinations: Destinations = ["http://127.0.0.1:9000"]
    preserve_host: bool = True


Legacy = Annotated[Balancer, Depends(Upstream(LegacySettings))]

app = FastAPI(docs_url="/new/docs", openapi_url="/new/openapi.json", redoc_url=None)


@app.get("/invoices/{number:int}")
async def invoice(number: int) -> dict[str, int]:
    return {"number": number, "total": 10 * number}


app.include_router(proxy_router(LegacySettings))  # last: all that has not moved
