"""The buffer that sockets are read into: one for all connections of a thread.

An event loop fills the buffer and passes it on within one callback, in which the needed bytes
are copied. A buffer for each connection would be most of the memory of an idle connection.
"""

from __future__ import annotations

import threading
from typing import Final

READ_BUFFER_BYTES: Final = 65536


class _ReadBuffer(threading.local):
    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_BUFFER_BYTES))


_buffer: Final = _ReadBuffer()


def read_buffer() -> memoryview:
    """Give the buffer of this thread, `READ_BUFFER_BYTES` long."""
    return _buffer.view
