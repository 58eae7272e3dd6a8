from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import APIKeyHeader

api_key = APIKeyHeader(name="x-api-key")


def require_user(key: Annotated[str, Depends(api_key)]) -> str:
    if key != "let-me-in":
        raise HTTPException(403, "unknown key")
    return "ada"
