from fastapi import FastAPI
from pydantic_settings import SettingsConfigDict

from fastapi_proxy_di import UpstreamSettings, proxy_router


class Billing(UpstreamSettings, name="billing"):
    model_config = SettingsConfigDict(
        env_file=".env",
        secrets_dir="secrets",  # in a container /run/secrets
        toml_file="billing.toml",
    )


app = FastAPI()
app.include_router(proxy_router(Billing), prefix="/billing")
