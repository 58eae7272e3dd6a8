"""A process that serves a guarded upstream without a framework, by settings of variables."""

from starlette.requests import HTTPConnection
from starlette.responses import Response

from fastapi_proxy_di import proxy_app


async def refuse(connection: HTTPConnection) -> Response | None:
    """Refuse requests whose header asks for it."""
    return Response(status_code=401) if "x-refuse" in connection.headers else None


billing = proxy_app("billing", guard=refuse)
