"""The bare FastAPI endpoint with one async dependency that checks a header."""

from fastapi import Depends, FastAPI, Request

from tests.benchmarks.contenders.api_key import require_api_key

app = FastAPI(dependencies=[Depends(require_api_key)])


@app.get("/1k", response_model=None)
async def constant() -> dict[str, str]:
    """A constant response, as in the framework's first steps."""
    return {"message": "Hello World"}


@app.post("/post", response_model=None)
async def read_constant(request: Request) -> dict[str, str]:
    """A constant response after the body was read."""
    await request.body()
    return {"message": "Hello World"}
