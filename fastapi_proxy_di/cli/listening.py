"""Opens the listening socket of a command, or prints why it cannot."""

from __future__ import annotations

import socket
import sys


def listen(host: str, port: int) -> socket.socket | None:
    """Listen for TCP connections.

    Args:
        host: An address or a name of this machine.
        port: 0 takes any free one.

    Returns:
        The socket; ``None`` if the port cannot be bound, with a message on the standard
        error.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that name their protocol, which
    # `socket.create_server` does not: a response of two writes would take 40 ms more.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        print(f"Cannot listen on {host} port {port}: {error.strerror}", file=sys.stderr)
        return None
    return listening


def url(listening: socket.socket, *, tls: bool = False) -> str:
    """Give the URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
