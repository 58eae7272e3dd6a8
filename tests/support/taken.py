"""An ASGI middleware that records what an app takes from its server."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Taken", "record_taken"]


@dataclass(slots=True)
class Taken:
    """What an app has taken from its server, over all requests.

    Attributes:
        messages: The messages, in order.
        waits: How many calls of ``receive`` wait for a message.
    """

    messages: list[Message] = field(default_factory=list)
    waits: int = 0


def record_taken(app: FastAPI) -> Taken:
    """Add the middleware to ``app``; give its record, which grows."""
    taken = Taken()

    def recording(inner: ASGIApp) -> ASGIApp:
        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            async def recorded() -> Message:
                taken.waits += 1
                try:
                    message = await receive()
                finally:
                    taken.waits -= 1
                taken.messages.append(message)
                return message

            await inner(scope, recorded if scope["type"] == "http" else receive, send)

        return run

    app.add_middleware(recording)
    return taken
