from collections import Counter

from fastapi import FastAPI

from fastapi_proxy_di import SseEvent, Tap, TapExchange, proxy_router
from fastapi_proxy_di.transforms import JsonBody

events_of_tenants: Counter[str] = Counter()
cut_off: Counter[str] = Counter()


class Count(Tap):
    def __init__(self, exchange: TapExchange) -> None:
        self.tenant = exchange.request.headers.get("x-tenant") or "none"

    def event(self, event: SseEvent) -> None:
        events_of_tenants[self.tenant] += 1

    def answer(self, body: JsonBody) -> None:
        events_of_tenants[self.tenant] += 1

    def end(self, outcome: str) -> None:
        if outcome != "complete":
            cut_off[self.tenant] += 1


app = FastAPI()
app.include_router(proxy_router("models", tap=Count), prefix="/models")
