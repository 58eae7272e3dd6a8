# --8<-- [start:rollout]
from typing import Annotated, Any
from zlib import crc32

from fastapi import Depends, FastAPI, Request, WebSocket
from pydantic_settings import BaseSettings, SettingsConfigDict
from strangler import Legacy, LegacySettings
from strangler_user import User

from fastapi_proxy_di import proxy_router


class Rollout(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ROLLOUT_")
    invoices: int = 0  # percentage of users; ROLLOUT_INVOICES=0 rolls back


rollout = Rollout()


def new_invoices(request: Request, user: User) -> bool:
    if "new-invoices" in request.cookies:  # testers choose for themselves
        return request.cookies["new-invoices"] == "on"
    return crc32(f"invoices:{user}".encode()) % 100 < rollout.invoices


app = FastAPI(docs_url="/new/docs", openapi_url="/new/openapi.json", redoc_url=None)


@app.get("/invoices/{number:int}")
async def invoice(
    number: int,
    request: Request,
    legacy: Legacy,
    moved: Annotated[bool, Depends(new_invoices)],
) -> Any:
    if not moved:
        return await legacy.forward(request)
    return {"number": number, "total": 10 * number}


# --8<-- [end:rollout]


# --8<-- [start:websocket]
@app.websocket("/live")
async def live(websocket: WebSocket, user: User) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(f"{user} said {text}")


# --8<-- [end:websocket]
app.include_router(proxy_router(LegacySettings))
