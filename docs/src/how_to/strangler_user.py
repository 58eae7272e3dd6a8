from typing import Annotated

from fastapi import Depends, HTTPException
from starlette.requests import HTTPConnection
from strangler import Legacy


async def current_user(connection: HTTPConnection, legacy: Legacy) -> str:
    cookie = connection.headers.get("cookie", "")
    response = await legacy.client.get("/me", headers={"cookie": cookie})
    if response.status_code == 401:
        raise HTTPException(401, "not logged in")
    name: str = response.raise_for_status().json()["name"]
    return name


User = Annotated[str, Depends(current_user)]
