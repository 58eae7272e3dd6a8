"""The bare endpoint, the proxied route and the mounted app, each behind one `CORSMiddleware`."""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from fastapi_proxy_di import proxy_app, proxy_lifespan, proxy_router


def _app() -> FastAPI:
    made = FastAPI(lifespan=proxy_lifespan)
    made.add_middleware(CORSMiddleware, allow_origins=["https://app.example"])
    return made


endpoint = _app()


@endpoint.get("/1k", response_model=None)
async def constant() -> dict[str, str]:
    """Return a constant."""
    return {"message": "Hello World"}


router = _app()
router.include_router(proxy_router("origin"))

mount = _app()
mount.mount("/", proxy_app("origin"))
