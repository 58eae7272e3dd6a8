"""WebSocket close frames: which codes may be sent, and which frame the other side gets.

Pure functions over codes and reasons (RFC 6455 section 7.4).
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["Close", "close_downwards", "close_upwards", "may_be_sent"]

# IANA's WebSocket Close Code Number Registry without the codes reserved for local use.
_REGISTERED_CODES: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
# Registered, but a protocol error to clients on wsproto and gorilla/websocket, which then
# report 1002 of their own instead of what happened.
_BAD_GATEWAY: Final = 1014
_INTERNAL_ERROR: Final = 1011
# RFC 6455 section 5.5: a control frame holds 125 bytes; the code takes two of them.
_MAX_REASON_BYTES: Final = 123


@dataclass(frozen=True, slots=True)
class Close:
    """A close frame that may be sent; with ``code=None`` it is empty."""

    code: int | None = None
    reason: str = ""


def may_be_sent(code: int) -> bool:
    """Whether ``code`` may stand in a close frame (RFC 6455 §7.4)."""
    return code in _REGISTERED_CODES or 3000 <= code < 5000


def close_upwards(code: int, reason: str | None, *, framed: bool) -> Close | None:
    """Map the end of the client's connection to the close frame for the upstream.

    Args:
        code: ``code`` of the ``websocket.disconnect`` message.
        reason: ``reason`` of the message.
        framed: Whether the message had the key ``reason``. Servers set it when the client sent
            a close frame; uvicorn reports a lost connection as 1005 without it.

    Returns:
        The close frame to send; ``None`` if the client's connection was lost: then the upstream
        gets no close frame.
    """
    if code in (1006, 1015) or (code == 1005 and not framed):
        return None
    if code == 1005:
        return Close()
    # A code that no endpoint may send is a protocol error of the client.
    return Close(code if may_be_sent(code) else 1002, _cut(reason or ""))


def close_downwards(code: int, reason: str = "") -> Close:
    """Map the end of the upstream's connection to the close frame for the client.

    Args:
        code: The upstream's close code; 1005 for an empty close, 1006 for a lost
            connection, 1015 for a TLS failure.
        reason: The upstream's reason.

    Returns:
        A close frame with a code, because ASGI cannot send an empty one. An empty close becomes
        1000. A code that may not be sent, or that many clients do not know (1014), becomes 1011,
        and always has a reason.
    """
    if code == 1005:
        return Close(1000)
    if may_be_sent(code) and code != _BAD_GATEWAY:
        return Close(code, _cut(reason))
    return Close(_INTERNAL_ERROR, _cut(reason or "bad gateway"))


def _cut(reason: str) -> str:
    """Cut ``reason`` to the size of a close frame, between two characters."""
    encoded = reason.encode("utf-8", "replace")
    return encoded[:_MAX_REASON_BYTES].decode("utf-8", "ignore")
