"""Bare FastAPI endpoint that returns a constant, without upstream or dependency: the unit of cost.

`response_model=None` gives the typed endpoint the cost of the untyped one in FastAPI's first steps.
"""

from fastapi import FastAPI, Request

app = FastAPI()


@app.get("/1k", response_model=None)
async def constant() -> dict[str, str]:
    """A constant response, as in the framework's first steps."""
    return {"message": "Hello World"}


@app.post("/post", response_model=None)
async def read_constant(request: Request) -> dict[str, str]:
    """A constant response after the body was read."""
    await request.body()
    return {"message": "Hello World"}
