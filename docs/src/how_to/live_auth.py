from fastapi import Depends, FastAPI, HTTPException
from starlette.requests import HTTPConnection

from fastapi_proxy_di import proxy_router

TICKETS = {"t1cket": "ada"}


# HTTPConnection, not Request: it exists on HTTP and on WebSocket routes.
def require_ticket(connection: HTTPConnection) -> str:
    user = TICKETS.get(connection.query_params.get("ticket", ""))
    if user is None:
        raise HTTPException(401, "no valid ticket")
    return user


app = FastAPI()
app.include_router(
    proxy_router("billing"),
    prefix="/billing",
    dependencies=[Depends(require_ticket)],
)
