"""The dependency of the contenders "with one Depends": a check of a header."""

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from tests.benchmarks.wire_format import API_KEY, API_KEY_HEADER


async def require_api_key(connection: HTTPConnection) -> None:
    """Refuse a request without the key with 401."""
    if connection.headers.get(API_KEY_HEADER) != API_KEY:
        raise HTTPException(401)
