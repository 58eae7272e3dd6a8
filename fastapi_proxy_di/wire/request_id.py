"""The id of a request, ``X-Request-ID``: the client's if its form is safe, else a new one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Final
from uuid import uuid4

__all__ = ["HEADER", "REQUEST_ID", "current_request_id", "request_id_of", "without_request_id"]

HEADER: Final = b"x-request-id"

REQUEST_ID: Final = "fastapi_proxy_di.request_id"
"""Key of an ASGI scope for the id, a ``str``; missing where ``ProxySettings.request_id`` is off."""

current_request_id: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""The id of the request that the running code belongs to, ``None`` for none."""

_ACCEPTED: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")

_Pair = tuple[bytes, bytes]


def request_id_of(headers: Iterable[_Pair]) -> str:
    """Give the id that the client sent, or a new one: 32 hexadecimal digits.

    A client's id is taken over if there is one only, of 1 to 64 letters, digits, ``.``, ``_``
    and ``-``, so that it may be logged and sent on.

    Args:
        headers: The headers of the request.
    """
    sent = [value for name, value in headers if name.lower() == HEADER]
    if len(sent) == 1 and _ACCEPTED.fullmatch(sent[0]):
        return sent[0].decode("ascii")
    return uuid4().hex


def without_request_id(headers: Iterable[_Pair]) -> list[_Pair]:
    """Give the headers without any ``X-Request-ID``."""
    return [pair for pair in headers if pair[0].lower() != HEADER]
