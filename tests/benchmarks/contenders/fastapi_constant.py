"""Bare FastAPI endpoint that returns a constant: no upstream, no dependency. The unit of cost.

`response_model=None` makes the typed endpoint what the untyped one of FastAPI's first steps is.
"""

from fastapi import FastAPI, Request

app = FastAPI()


@app.get("/1k", response_model=None)
async def constant() -> dict[str, str]:
    """A constant answer, as in the framework's first steps."""
    return {"message": "Hello World"}


@app.post("/post", response_model=None)
async def read_constant(request: Request) -> dict[str, str]:
    """A constant answer after the body was read."""
    await request.body()
    return {"message": "Hello World"}
