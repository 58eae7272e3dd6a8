"""Reads a decoded copy of a body whose bytes are passed on as they are.

gzip and deflate are read always; br and zstd where the standard library or an installed package
(``brotli``, ``backports.zstd``) can bound what it gives at a time. A copy is given in pieces of
bounded size, so that a few bytes that decode to gigabytes take time but no memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, TypeAlias

from fastapi_proxy_di.wire.headers import list_members

__all__ = ["PIECE_BYTES", "DecodedCopy", "decoded_copy"]

PIECE_BYTES: Final = 65536
"""About the largest piece of a decoded copy; ``brotli`` gives up to twice as much."""

_Decode: TypeAlias = Callable[[bytes], Iterator[bytes]]

_GZIP: Final = zlib.MAX_WBITS | 16
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS


class DecodedCopy:
    """A decoded copy of one body.

    Args:
        decode: Decodes the next bytes of the body.

    Attributes:
        failed: Whether the body cannot be decoded further; all that follows is ignored.
    """

    __slots__ = ("_decode", "failed")

    def __init__(self, decode: _Decode) -> None:
        self._decode: Final = decode
        self.failed: bool = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give the pieces of the copy that the next bytes of the body contain."""
        if self.failed:
            return
        try:
            yield from self._decode(data)
        except Exception:  # noqa: BLE001  # each library has errors of its own
            self.failed = True


def decoded_copy(headers: list[tuple[bytes, bytes]]) -> DecodedCopy | None:
    """Give the decoded copy of a body, ``None`` if its coding cannot be decoded.

    Args:
        headers: The headers of its message, names in lower case.
    """
    codings = [one for one in list_members(headers, b"content-encoding") if one != b"identity"]
    if not codings:
        return DecodedCopy(_identity)
    make = _DECODERS.get(codings[0]) if len(codings) == 1 else None
    return None if make is None else DecodedCopy(make())


def _identity(data: bytes) -> Iterator[bytes]:
    if data:
        yield data


class _Gzip:
    """Decodes gzip, which may have several members (RFC 1952 section 2.2)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)

    def __call__(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP)
            yield from _inflated(self._member, data)
            data = self._member.unused_data


class _Deflate:
    """Decodes deflate: with the header of zlib, or without, as some servers send it."""

    def __init__(self) -> None:
        self._start = b""
        self._stream: Any = None

    def __call__(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            data = self._start = self._start + data
            if len(data) < 2:
                return
            # RFC 1950 section 2.2: the method is 8, and both bytes are a multiple of 31.
            has_header = data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0
            self._stream = zlib.decompressobj(_ZLIB if has_header else _RAW)
        yield from _inflated(self._stream, data)


def _inflated(stream: Any, data: bytes) -> Iterator[bytes]:
    piece = b"more"
    while data or len(piece) == PIECE_BYTES:
        piece = stream.decompress(data, PIECE_BYTES)
        data = stream.unconsumed_tail
        if piece:
            yield piece
        elif stream.eof:
            return


def _brotli(module: Any) -> Callable[[], _Decode]:
    def make() -> _Decode:
        stream = module.Decompressor()

        def decode(data: bytes) -> Iterator[bytes]:
            more = True
            while more:
                piece = stream.process(data, output_buffer_limit=PIECE_BYTES)
                if piece:
                    yield piece
                # A full piece has a rest, also where more may be fed.
                more = len(piece) >= PIECE_BYTES or not stream.can_accept_more_data()
                data = b""

        return decode

    return make


def _zstd(module: Any) -> Callable[[], _Decode]:
    def make() -> _Decode:
        stream = module.ZstdDecompressor()

        def decode(data: bytes) -> Iterator[bytes]:
            nonlocal stream
            while data or not (stream.needs_input or stream.eof):
                if stream.eof:  # RFC 8878 section 3: several frames may follow each other
                    stream = module.ZstdDecompressor()
                piece = stream.decompress(data, PIECE_BYTES)
                data = stream.unused_data if stream.eof else b""
                if piece:
                    yield piece

        return decode

    return make


def _decoders() -> dict[bytes, Callable[[], _Decode]]:
    """Give the decoder of each coding that can be decoded in this process."""
    found: dict[bytes, Callable[[], _Decode]] = {
        b"gzip": _Gzip,
        b"x-gzip": _Gzip,
        b"deflate": _Deflate,
    }
    with suppress(ImportError):
        module = import_module("brotli")
        if hasattr(module.Decompressor, "can_accept_more_data"):  # since 1.2
            found[b"br"] = _brotli(module)
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            found.setdefault(b"zstd", _zstd(import_module(name)))
    return found


_DECODERS: Final = _decoders()
