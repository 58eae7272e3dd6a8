"""What a process serves without any framework: a guarded upstream from the environment."""

from starlette.requests import HTTPConnection
from starlette.responses import Response

from fastapi_proxy_di import proxy_app


async def refuse(connection: HTTPConnection) -> Response | None:
    """Keep out who asks for it."""
    return Response(status_code=401) if "x-refuse" in connection.headers else None


billing = proxy_app("billing", guard=refuse)
