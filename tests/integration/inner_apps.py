"""Apps that tests use as ``asgi://`` destinations."""

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI


@contextlib.asynccontextmanager
async def _fail(_: FastAPI) -> AsyncIterator[None]:
    raise RuntimeError("the inner app is broken")
    yield


fails_at_start = FastAPI(lifespan=_fail)
