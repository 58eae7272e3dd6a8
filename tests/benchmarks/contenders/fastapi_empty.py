"""The bare FastAPI endpoint with one async dependency that does nothing."""

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection


async def nothing(connection: HTTPConnection) -> None:
    """Do nothing."""


app = FastAPI()


@app.get("/1k", response_model=None, dependencies=[Depends(nothing)])
async def constant() -> dict[str, str]:
    """A constant response, as in the framework's first steps."""
    return {"message": "Hello World"}
