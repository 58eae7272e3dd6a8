"""Decoded copies of encoded bodies, in any pieces and of bounded size."""

from __future__ import annotations

import gzip
import importlib
import tracemalloc
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fastapi_proxy_di.wire import content_coding
from fastapi_proxy_di.wire.content_coding import PIECE_BYTES, decoded_copy

TEXT = b"".join(b"data: event %d\n\n" % number for number in range(200))


def zlib_alone(data: bytes, wbits: int = -zlib.MAX_WBITS) -> bytes:
    """Compress with the given header, by default none."""
    stream = zlib.compressobj(wbits=wbits)
    return stream.compress(data) + stream.flush()


def brotli(data: bytes) -> bytes:
    """Compress as br."""
    compressed: bytes = pytest.importorskip("brotli", minversion="1.2").compress(data)
    return compressed


def zstd(data: bytes) -> bytes:
    """Compress as zstd, in two frames."""
    module: Any = None
    for name in ("compression.zstd", "backports.zstd"):
        try:
            module = importlib.import_module(name)
            break
        except ImportError:
            continue
    if module is None:
        pytest.skip("no zstd")
    half = len(data) // 2
    compressed: bytes = module.compress(data[:half]) + module.compress(data[half:])
    return compressed


CODINGS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "none": (b"", bytes),
    "identity": (b"identity", bytes),
    "gzip": (b"gzip", gzip.compress),
    "x-gzip": (b" X-GZip ", gzip.compress),
    "gzip in two members": (
        b"gzip",
        lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]),
    ),
    "deflate": (b"deflate", zlib.compress),
    "deflate without a header": (b"identity, deflate", zlib_alone),
    "br": (b"br", brotli),
    "zstd": (b"zstd", zstd),
}


@pytest.mark.parametrize(("coding", "encode"), CODINGS.values(), ids=CODINGS)
@pytest.mark.parametrize("size", [1, 2, 7, 100_000])
def test_copy_is_the_body_before_it_was_encoded(
    coding: bytes, encode: Callable[[bytes], bytes], size: int
) -> None:
    """In pieces of any size."""
    encoded = encode(TEXT)
    copy = decoded_copy([(b"content-encoding", coding)] if coding else [])

    assert copy is not None
    found = [
        piece for at in range(0, len(encoded), size) for piece in copy.feed(encoded[at : at + size])
    ]
    assert b"".join(found) == TEXT
    assert not copy.failed


def test_flushed_event_is_read_at_once() -> None:
    """A server of event streams flushes after each event; the copy does not lag behind."""
    stream = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    copy = decoded_copy([(b"content-encoding", b"gzip")])
    assert copy is not None

    for number in range(3):
        event = b"data: %d\n\n" % number
        data = stream.compress(event) + stream.flush(zlib.Z_SYNC_FLUSH)
        assert b"".join(copy.feed(data)) == event


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_copy_of_few_bytes_takes_little_memory(coding: str) -> None:
    """64 MiB of zeros are given in pieces."""
    name, encode = CODINGS[coding]
    encoded = encode(bytes(64 << 20))
    copy = decoded_copy([(b"content-encoding", name)])
    assert copy is not None
    tracemalloc.start()
    try:
        sizes = [len(piece) for piece in copy.feed(encoded)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert sum(sizes) == 64 << 20
    assert max(sizes) < 2 * PIECE_BYTES
    assert peak < 4 << 20


@pytest.mark.parametrize("coding", [b"compress", b"gzip, gzip", b"x", b"gzip, br"])
def test_other_codings_have_no_copy(coding: bytes) -> None:
    """Nor has a body that was encoded twice."""
    assert decoded_copy([(b"content-encoding", coding)]) is None


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_broken_body_ends_the_copy(coding: str) -> None:
    """What was read before stays; what follows is ignored, and no error is raised."""
    name, encode = CODINGS[coding]
    encode(b"")  # skips where the library is not installed
    copy = decoded_copy([(b"content-encoding", name)])
    assert copy is not None

    assert list(copy.feed(b"\xff\xfe\xfd no such coding")) == []
    assert copy.failed
    assert list(copy.feed(b"more")) == []


def test_codings_without_a_library_have_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the standard library have."""

    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(content_coding, "import_module", missing)

    assert set(content_coding._decoders()) == {b"gzip", b"x-gzip", b"deflate"}


def test_brotli_that_cannot_bound_its_output_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those before 1.2."""
    old = SimpleNamespace(Decompressor=object, ZstdDecompressor=object)
    monkeypatch.setattr(content_coding, "import_module", lambda name: old)

    assert b"br" not in content_coding._decoders()
