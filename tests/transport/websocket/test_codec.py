"""Frames as bytes: reading, building, and the end. No sockets."""

from __future__ import annotations

import zlib

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate

from fastapi_proxy_di.errors import UpstreamProtocolError
from fastapi_proxy_di.transport.websocket.codec import FrameCodec
from fastapi_proxy_di.wire.close import Close
from tests.support.websocket_frames import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    frame,
    split_frame,
)


def read_client_frame(data: bytes) -> tuple[int, bytes, bytes]:
    """Give opcode, unmasked payload, and the bytes after the frame, which is whole."""
    sent, rest = split_frame(data)
    assert sent.masked, "a client's frame must be masked"
    assert (sent.fin, sent.compressed) == (True, False)
    return sent.opcode, sent.payload, rest


_STREAM = (
    frame(TEXT, "grüße".encode())
    + frame(BINARY, b"\x00\xff")
    + frame(TEXT)
    + frame(TEXT, b"gr\xc3", fin=False)
    + frame(PING, b"hi")
    + frame(CONT, b"\xbc", fin=False)
    + frame(CONT, "ße".encode())
    + frame(BINARY, b"a" * 300)
    + frame(BINARY, b"b" * 70_000)
    + frame(PONG)
    + frame(TEXT, b"last")
)
_MESSAGES = ["grüße", b"\x00\xff", "", "grüße", b"a" * 300, b"b" * 70_000, "last"]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 64, 1000, 65_536, len(_STREAM)])
def test_receive_gives_the_same_messages_however_the_bytes_are_split(size: int) -> None:
    """Plain frames and others, whole and in pieces of every size; one pong for the ping."""
    codec = FrameCodec()
    messages: list[str | bytes] = []
    sent = b""
    for at in range(0, len(_STREAM), size):
        messages += codec.receive(_STREAM[at : at + size])
        sent += b"".join(codec.to_send())

    assert messages == _MESSAGES
    assert [type(message) for message in messages] == [type(message) for message in _MESSAGES]
    assert read_client_frame(sent) == (PONG, b"hi", b"")
    assert codec.received_bytes == 7 + 2 + 7 + 300 + 70_000 + 4
    assert codec.end is None


@pytest.mark.parametrize("cut", range(1, len(frame(PING, b"p" * 5)) + 1))
def test_plain_frames_after_other_frames_are_read_as_plain(cut: int) -> None:
    """Wherever a ping is split, the messages after it take the fast way."""
    ping = frame(PING, b"p" * 5)
    codec = FrameCodec()
    codec.receive(ping[:cut])
    codec.receive(ping[cut:])

    assert codec.receive(frame(TEXT, b"xx") * 3) == ["xx"] * 3
    assert codec.plain


def test_frame_with_a_64_bit_length_is_followed_to_its_end() -> None:
    """Its head may arrive byte by byte."""
    large = frame(BINARY, b"y" * 65_536)
    codec = FrameCodec()
    early = [codec.receive(large[at : at + 1]) for at in range(12)]

    assert early == [[]] * 12
    assert codec.receive(large[12:]) == [b"y" * 65_536]
    assert codec.receive(frame(TEXT, b"xx")) == ["xx"]
    assert codec.plain


@pytest.mark.parametrize(
    ("payload", "end"),
    [
        (b"", Close(1005, "")),
        (b"\x03\xe8", Close(1000, "")),
        (b"\x0f\xa0bye", Close(4000, "bye")),
    ],
)
def test_close_frame_is_echoed_and_ends_reading(payload: bytes, end: Close) -> None:
    """Messages before it are given, bytes after it are not read."""
    codec = FrameCodec()
    before = frame(TEXT, b"before")
    messages = codec.receive(before + frame(CLOSE, payload) + frame(TEXT, b"x"))

    assert messages == ["before"]
    assert (codec.end, codec.error) == (end, None)
    assert read_client_frame(b"".join(codec.to_send())) == (CLOSE, payload, b"")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xc3", fin=False) + frame(CONT, b"\x28"), 1007),
        (frame(BINARY, b"x" * 1025), 1009),
        (frame(BINARY, b"x" * 1000, fin=False) + frame(CONT, b"x" * 25), 1009),
        (frame(CONT, b"x"), 1002),
        (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(PING, fin=False), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, b"\x03\xed"), 1002),
        (frame(TEXT, b"x", compressed=True), 1002),
        (frame(0x3, b"x"), 1002),
        (b"\x81\x81\x00\x00\x00\x00x", 1002),
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_fault_ends_with_its_code_and_a_close_frame(data: bytes, code: int, split: bool) -> None:
    """Bad UTF-8 is 1007, too long 1009, all else 1002; later messages are not given."""
    codec = FrameCodec(max_message_bytes=1024)
    messages = []
    whole = frame(TEXT, b"good") + data + frame(TEXT, b"late")
    for piece in [whole[at : at + 1] for at in range(len(whole))] if split else [whole]:
        if codec.end is None:
            messages += codec.receive(piece)

    assert messages == ["good"]
    assert codec.end is not None
    assert codec.end.code == code
    assert isinstance(codec.error, UpstreamProtocolError)
    opcode, payload, _ = read_client_frame(b"".join(codec.to_send()))
    assert (opcode, payload[:2]) == (CLOSE, code.to_bytes(2, "big"))


def test_message_at_the_limit_is_accepted() -> None:
    """``max_message_bytes`` is the longest allowed message."""
    codec = FrameCodec(max_message_bytes=1024)

    assert codec.receive(frame(BINARY, b"x" * 1024)) == [b"x" * 1024]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_message_is_one_masked_frame(size: int) -> None:
    """For each of the three forms of a length, text and binary."""
    codec = FrameCodec()
    text, text_size = codec.message("ü" + "x" * (size - 2) if size > 1 else "x" * size)
    binary, binary_size = codec.message(b"\x00" * size)

    assert (text_size, binary_size) == (size, size)
    assert read_client_frame(text)[::2] == (TEXT, b"")
    assert read_client_frame(text)[1].decode().strip("x") in {"", "ü"}
    assert read_client_frame(binary) == (BINARY, b"\x00" * size, b"")


def test_masks_differ() -> None:
    """RFC 6455 section 5.3: a mask must be unpredictable."""
    codec = FrameCodec()

    assert len({codec.message(b"x" * 8)[0] for _ in range(20)}) > 1


def test_ping_and_close_are_given_once() -> None:
    """Each is a frame of its own, in order."""
    codec = FrameCodec()
    codec.ping()
    codec.close(Close(4001, "done"))
    data = b"".join(codec.to_send())

    opcode, payload, rest = read_client_frame(data)
    assert (opcode, payload) == (PING, b"")
    assert read_client_frame(rest) == (CLOSE, b"\x0f\xa1done", b"")
    assert codec.to_send() == []


def test_compressed_messages_are_read_and_built() -> None:
    """RFC 7692: RSV1 marks them; their uncompressed size is counted."""
    codec = FrameCodec(extensions=[PerMessageDeflate(False, False, 15, 15)])
    compressor = zlib.compressobj(wbits=-15)
    packed = compressor.compress(b"z" * 5000) + compressor.flush(zlib.Z_SYNC_FLUSH)
    messages = codec.receive(frame(TEXT, packed[:-4], compressed=True))
    sent, size = codec.message("z" * 5000)
    one, rest = split_frame(sent)
    unpacked = zlib.decompressobj(wbits=-15).decompress(one.payload + b"\x00\x00\xff\xff")

    assert (messages, codec.received_bytes, size) == (["z" * 5000], 5000, 5000)
    assert (one.opcode, one.compressed, one.fin, one.masked) == (TEXT, True, True, True)
    assert (unpacked, rest) == (b"z" * 5000, b"")
