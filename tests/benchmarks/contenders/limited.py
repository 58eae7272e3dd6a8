"""The bare FastAPI endpoint with a `rate_limit`; in the store, if the environment names one."""

from fastapi import Depends, FastAPI

from fastapi_proxy_di import proxy_lifespan, rate_limit

app = FastAPI(lifespan=proxy_lifespan)


@app.get("/1k", response_model=None, dependencies=[Depends(rate_limit("100000000/minute"))])
async def constant() -> dict[str, str]:
    """A constant response, as in the framework's first steps."""
    return {"message": "Hello World"}
