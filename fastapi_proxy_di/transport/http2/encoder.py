"""Encodes request heads without Huffman coding.

The time of hpack's Huffman encoder grows with the square of a value's length: 0.6 s for 64 KiB. A
client could stop the event loop with one header. RFC 7541 section 5.2 leaves the choice to the
sender.
"""

from __future__ import annotations

from functools import partialmethod

from hpack import Encoder

__all__ = ["PlainEncoder"]


class PlainEncoder(Encoder):
    """An hpack encoder that writes names and values as they are."""

    encode = partialmethod(Encoder.encode, huffman=False)
