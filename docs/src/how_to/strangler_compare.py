# --8<-- [start:compare]
import logging
import random
from typing import Any

import httpx
from fastapi import BackgroundTasks, FastAPI, Request
from strangler import Legacy, LegacySettings

from fastapi_proxy_di import Balancer, proxy_router

logger = logging.getLogger(__name__)
SHARE = 1.0  # of the requests that are compared


async def compare(legacy: Balancer, path: str, cookie: str, new: Any) -> None:
    try:
        response = await legacy.client.get(path, headers={"cookie": cookie}, timeout=5)
        old = response.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        logger.warning("%s: no response to compare with: %s", path, type(error).__name__)
        return
    if old != new:
        logger.warning("%s: the responses differ", path)


app = FastAPI()


@app.get("/invoices/{number:int}")
async def invoice(
    number: int, request: Request, legacy: Legacy, background: BackgroundTasks
) -> dict[str, int]:
    new = {"number": number, "total": 10 * number}
    if random.random() < SHARE:
        cookie = request.headers.get("cookie", "")
        background.add_task(compare, legacy, f"/invoices/{number}", cookie, new)
    return new


# --8<-- [end:compare]
app.include_router(proxy_router(LegacySettings))
