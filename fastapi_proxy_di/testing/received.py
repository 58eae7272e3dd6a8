"""The record of one attempt that a stand-in received."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx

__all__ = ["Received"]


@dataclass(slots=True)
class Received:
    """One attempt of the gateway at one destination.

    Attributes:
        destination: Name of the destination, as the test wrote it.
        method: The method; ``GET`` for WebSocket handshakes.
        path: The raw path, base path included, without the query.
        query: The raw query.
        headers: All headers, repeats kept; look-ups ignore the case of names.
        body: The request body, as far as it was sent.
        messages: Messages received over the WebSocket.
    """

    destination: str
    method: str
    path: str
    query: str
    headers: httpx.Headers
    body: bytes = b""
    messages: list[str | bytes] = field(default_factory=list)

    def json(self) -> Any:
        """Give the body, parsed as JSON.

        Raises:
            ValueError: The body is not JSON.
        """
        return json.loads(self.body)
