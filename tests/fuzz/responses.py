"""Responses for the fuzzer: well-formed ones, and mutations of them.

Everything is drawn from one ``Random``, so a seed and a number identify a case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

__all__ = ["Case", "make_case"]

_STATUSES: Final = [
    b"200", b"200", b"200", b"201", b"204", b"304", b"404", b"503", b"100", b"103", b"101",
    b"599", b"600", b"99", b"099", b"000", b"1000", b"2OO",
]  # fmt: skip
_VERSIONS: Final = [b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"ICY"]
_LENGTHS: Final = [b"0", b"5", b"5", b"5", b"005", b"10", b"+5", b"-5", b"5,5", b"5, 6", b"0x5",
                   b"5 ", b" 5", b"", b"5\t", b"99999999999999999999999", b"1_0"]  # fmt: skip
_CODINGS: Final = [b"chunked", b"chunked", b"chunked", b"Chunked", b"chunked ", b"\tchunked",
                   b"chunked\t",
                   b"chunked, gzip", b"gzip, chunked", b"xchunked", b"chunked;a=b", b"identity",
                   b"\x0bchunked", b"chunked,", b",chunked", b"", b"chunked, chunked"]  # fmt: skip
_NAMES: Final = [b"X-A", b"Set-Cookie", b"Connection", b"Trailer", b"Upgrade", b"X A", b"X\0", b""]
_VALUES: Final = [b"x", b"close", b"keep-alive", b"upgrade", b"websocket", b"a\0b", b"a\rb",
                  b"a\nb", b"\xff\xfe", b"", b"y" * 300]  # fmt: skip
_ENDS: Final = [b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b" \r\n"]
_SNIPPETS: Final = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"0\r\n\r\n", b"\r\n\r\n", b"5\r\nhello\r\n",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!", b";", b"\x0b", b"\x0c", b"\x85", b"\xa0",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One response as received bytes.

    Attributes:
        method: Of its request.
        pieces: The segments.
    """

    method: bytes
    pieces: tuple[bytes, ...]

    @property
    def data(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces)


def make_case(random: Random) -> Case:
    """Draw a case; every other one has well-formed messages, whose mutations are parsed deepest."""
    messages = [_tame, _tame, _tame, _message] if random.random() < 0.5 else [_message]
    count = random.choice((1, 1, 1, 2, 3))
    data = b"".join(random.choice(messages)(random) for _ in range(count))
    for _ in range(random.choice((0, 0, 1, 1, 2, 5))):
        data = _mutate(random, data)
    return Case(random.choice((b"GET", b"GET", b"GET", b"HEAD")), _split(random, data))


def _tame(random: Random) -> bytes:
    """Draw a response as servers send it."""
    version = random.choice((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"))
    status = random.choice((b"200", b"200", b"200", b"404", b"204", b"304", b"103"))
    headers = [random.choice((b"X-A: b", b"Trailer: X-T", b"Connection: close", b"Vary: *"))]
    body = b""
    if status not in {b"204", b"304", b"103"}:
        if random.random() < 0.5:
            headers.append(b"Content-Length: 5")
            body = b"hello"
        else:
            headers.append(b"Transfer-Encoding: chunked")
            body = b"5\r\nhello\r\n0\r\n" + random.choice((b"", b"X-T: y\r\n")) + b"\r\n"
    random.shuffle(headers)
    return b"\r\n".join((version + b" " + status + b" OK", *headers, b"", body))


def _message(random: Random) -> bytes:
    end = _ends(random)
    lines = [
        random.choice(_VERSIONS)
        + b" "
        + random.choice(_STATUSES)
        + random.choice((b" OK", b" ", b""))
    ]
    framing = random.choice(("length", "length", "chunked", "chunked", "none", "both", "twice"))
    headers: list[bytes] = []
    if framing in {"length", "both", "twice"}:
        headers.append(b"Content-Length: " + random.choice(_LENGTHS))
    if framing == "twice":
        headers.append(b"content-length:" + random.choice(_LENGTHS))
    if framing in {"chunked", "both"}:
        headers.append(b"Transfer-Encoding: " + random.choice(_CODINGS))
    if random.random() < 0.05:
        headers.append(b"Transfer-Encoding: " + random.choice(_CODINGS))
    for _ in range(random.choice((0, 0, 1, 2))):
        colon = random.choice((b": ", b": ", b":", b" : ", b""))
        headers.append(random.choice(_NAMES) + colon + random.choice(_VALUES))
    random.shuffle(headers)
    lines += headers
    head = b"".join(line + end() for line in lines) + end()
    return head + _body(random, framing)


def _ends(random: Random) -> Callable[[], bytes]:
    """Give a source of line ends: nearly always right in one message, sometimes never."""
    wild = random.random() < 0.1
    return lambda: random.choice(_ENDS) if wild else b"\r\n"


def _body(random: Random, framing: str) -> bytes:
    if framing in {"chunked", "both"}:
        end = _ends(random)
        parts = []
        for _ in range(random.choice((0, 1, 1, 2, 3))):
            size = random.choice((1, 2, 5, 16, 17))
            text = random.choice(
                (b"%x", b"%x", b"%x", b"%X", b"0%x", b" %x", b"%x ", b"+%x", b"0x%x")
            )
            extension = random.choice((b"", b"", b"", b";a", b";a=b", b';a="\r\n"', b" ;a", b";\0"))
            parts.append(text % size + extension + end() + b"x" * size + end())
        trailer = random.choice(
            (b"", b"", b"", b"X-T: y\r\n", b"Content-Length: 9\r\n", b"bad\r\n")
        )
        return b"".join(parts) + b"0" + end() + trailer + end()
    return random.choice((b"hello", b"hello", b"hell", b"hello!", b""))


def _mutate(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    kind = random.randrange(6)
    if kind == 0:
        return data[:at] + random.choice(_SNIPPETS) + data[at:]
    if kind == 1:
        return data[:at] + data[at + random.choice((1, 1, 2, 4)) :]
    if kind == 2:
        return data[:at] + bytes((random.randrange(256),)) + data[at + 1 :]
    if kind == 3:
        return data[:at]
    if kind == 4:
        to = random.randrange(len(data) + 1)
        return data[:at] + data[min(at, to) : max(at, to)] + data[at:]
    return data[:at] + random.choice((b"\r\n", b"\n")) + data[at:]


def _split(random: Random, data: bytes) -> tuple[bytes, ...]:
    kind = random.randrange(4)
    if kind == 0 or len(data) < 2:
        return (data,) if data else ()
    if kind == 1:
        return tuple(data[at : at + 1] for at in range(len(data)))
    cuts = sorted({random.randrange(1, len(data)) for _ in range(random.choice((1, 2, 5)))})
    return tuple(
        data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)
    )
