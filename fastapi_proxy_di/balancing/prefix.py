"""Policy ``prefix``: requests whose prompts begin alike go to the same destination.

Model servers keep what they have computed for the beginning of a prompt, so a destination that
had a prompt with the same beginning responds sooner. The policy is `Hash` with the beginning of
the prompt as its key, and with the same bounded load. Forwarding reads the body before the pick
and makes the key by ``prefix_key``; a request without a body is picked by two choices.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from fastapi_proxy_di.balancing.hash import Hash

__all__ = ["Prefix", "prefix_key"]

_PROMPTS: Final = ("system", "messages", "prompt", "input")
"""The fields of a JSON body that have the prompt, as the APIs of model servers name them."""

_DIGEST_BYTES: Final = 16
_DEEPEST: Final = 8
"""Levels of a prompt that are read: messages, their content, its parts, and what those quote."""


class Prefix(Hash):
    """`Hash` for keys that are made of the beginning of a prompt."""

    name = "prefix"


def prefix_key(content: bytes, document: object, length: int) -> bytes | None:
    """Make the key of a request, of the first ``length`` bytes of its prompt.

    Args:
        content: The body as far as it was read, at least ``length`` bytes or all of it.
        document: The body as JSON, ``None`` if it is none or was not read to its end.
        length: Number of bytes that count.

    Returns:
        A digest, so that nothing of the prompt is kept; of the raw bytes if the body has no
        prompt; ``None`` if it is empty.
    """
    text = b""
    if isinstance(document, dict):
        text = _beginning(_texts([document.get(name) for name in _PROMPTS]), length)
    text = text or content[:length]
    return blake2b(text, digest_size=_DIGEST_BYTES).digest() if text else None


def _beginning(texts: Iterator[str], length: int) -> bytes:
    beginning = b""
    for text in texts:
        beginning += text[:length].encode("utf-8", "surrogatepass")
        if len(beginning) >= length:
            break
    return beginning[:length]


def _texts(value: object, level: int = 0) -> Iterator[str]:
    """Give the texts of a prompt in their order, whether it is a text, parts or messages.

    What else is at a part stays out, such as a marker for caches, which moves from one request
    of a conversation to the next.
    """
    if isinstance(value, str):
        yield value
    elif level > _DEEPEST:
        return  # a client may nest as deep as JSON lets it
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, level + 1)
    elif isinstance(value, dict):
        yield from _texts(value.get("text"), level + 1)
        yield from _texts(value.get("content"), level + 1)
