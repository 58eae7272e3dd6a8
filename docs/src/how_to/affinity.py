import os

from fastapi import FastAPI

from fastapi_proxy_di import AffinitySettings, UpstreamSettings, proxy_router


class Billing(UpstreamSettings, name="billing"):
    affinity: AffinitySettings | None = AffinitySettings(
        cookie="billing_affinity", key=os.environ["AFFINITY_KEY"]
    )


app = FastAPI()
app.include_router(proxy_router(Billing), prefix="/billing")
