"""One listening socket on this machine's loopback, or a sentence that says why not."""

from __future__ import annotations

import os
import socket
import sys


def listen(port: int) -> socket.socket | None:
    """Listen on 127.0.0.1.

    Args:
        port: 0 takes any free one.

    Returns:
        The socket; ``None`` if the port cannot be had, which is then said on the
        standard error.
    """
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        print(f"Cannot listen on 127.0.0.1:{port}: {reason}. Try --port 0.", file=sys.stderr)
        return None
