"""Each user's notebook server has an address of its own."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Cookie, FastAPI, HTTPException

from fastapi_proxy_di import (
    AllowedDestinationsSettings,
    ForwardOptions,
    UpstreamSettings,
    proxy_router,
)


class Notebooks(UpstreamSettings, name="notebooks"):
    allowed_destinations: AllowedDestinationsSettings = AllowedDestinationsSettings(
        origins=["http://*.notebooks.svc:8888"]
    )


@dataclass
class Server:
    address: str
    token: str


SESSIONS: dict[str, str] = {}  # your sign-in: cookie to user
SERVERS: dict[str, Server] = {}  # your spawner: user to running server


async def server_of(name: str, session: Annotated[str, Cookie()] = "") -> ForwardOptions:
    if SESSIONS.get(session) != name:
        raise HTTPException(403)
    server = SERVERS.get(name)
    if server is None:
        raise HTTPException(404, "Start your server first.")
    return ForwardOptions(
        destination=server.address,
        headers={"authorization": f"token {server.token}"},
    )


app = FastAPI()
app.include_router(proxy_router(Notebooks, options=server_of), prefix="/user/{name}")
