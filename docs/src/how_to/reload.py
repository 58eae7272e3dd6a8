from typing import Annotated

from fastapi import FastAPI, HTTPException, Security
from fastapi.security import APIKeyHeader
from pydantic_settings import SettingsConfigDict

from fastapi_proxy_di import SettingsError, UpstreamSettings, proxy_router, reload_upstreams


class Billing(UpstreamSettings, name="billing"):
    model_config = SettingsConfigDict(toml_file="/etc/gateway/billing.toml")


app = FastAPI()
app.include_router(proxy_router(Billing), prefix="/billing")


def operator(key: Annotated[str, Security(APIKeyHeader(name="x-api-key"))]) -> None:
    if key != "s3cret":
        raise HTTPException(403)


@app.post("/reload", dependencies=[Security(operator)])
async def reload() -> dict[str, tuple[str, ...]]:
    try:
        return await reload_upstreams(app)
    except SettingsError:
        raise HTTPException(409, "the settings have faults; see the log") from None
