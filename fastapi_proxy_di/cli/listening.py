"""One listening socket, or a sentence that says why not."""

from __future__ import annotations

import socket
import sys


def listen(host: str, port: int) -> socket.socket | None:
    """Listen for TCP connections.

    Args:
        host: An address or a name of this machine.
        port: 0 takes any free one.

    Returns:
        The socket; ``None`` if the port cannot be had, which is then said on the
        standard error.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        # Python adds the address in parentheses, in its own notation.
        reason = (error.strerror or str(error)).partition(" (")[0]
        print(f"Cannot listen on {host} port {port}: {reason}", file=sys.stderr)
        return None


def url(listening: socket.socket) -> str:
    """Where a browser on this machine finds the socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
