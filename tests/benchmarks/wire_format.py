"""The bytes of the benchmarks: sizes, the constant response, the layout of one event.

Shared by origin, contenders and load generators; must not import any of them.
"""

from typing import Final

GET_BODY_BYTES: Final = 1024
POST_BODY_BYTES: Final = 16 * 1024
TRANSFER_BYTES: Final = 100 * 1000 * 1000
MESSAGE_BYTES: Final = 256
EVENT_BYTES: Final = 64

API_KEY_HEADER: Final = "x-api-key"
API_KEY: Final = "benchmark"

CONSTANT: Final = b'{"message":"Hello World"}'
_PREFIX: Final = b"data: "
_DIGITS: Final = 20


def event_bytes(stamp_ns: int) -> bytes:
    """One server-sent event of `EVENT_BYTES` bytes that carries a monotonic time in ns."""
    filler = EVENT_BYTES - len(_PREFIX) - _DIGITS - 2
    return b"%s%0*d%s\n\n" % (_PREFIX, _DIGITS, stamp_ns, b"." * filler)


def event_stamp(event: bytes) -> int:
    """The time in ns that `event_bytes` wrote; `ValueError` if the event is not one of ours."""
    if not event.startswith(_PREFIX) or not event.endswith(b"\n\n"):
        raise ValueError(f"not a benchmark event: {event!r}")
    return int(event[len(_PREFIX) : len(_PREFIX) + _DIGITS])
