from fastapi import FastAPI

from fastapi_proxy_di import Destinations, UpstreamSettings, proxy_router


class Billing(UpstreamSettings, name="billing"):
    destinations: Destinations = ["http://127.0.0.1:9001"]


class Archive(UpstreamSettings, name="archive"):
    destinations: Destinations = ["http://127.0.0.1:9002"]


app = FastAPI()
app.include_router(proxy_router(Billing, fallback=Archive), prefix="/billing")
