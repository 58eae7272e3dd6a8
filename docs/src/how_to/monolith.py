from fastapi import FastAPI

from fastapi_proxy_di import Destinations, UpstreamSettings, proxy_router


class Invoices(UpstreamSettings, name="invoices"):
    destinations: Destinations = ["asgi://invoices:app"]


app = FastAPI()
app.include_router(proxy_router(Invoices), prefix="/invoices")
