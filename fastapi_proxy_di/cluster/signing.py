"""Signs what a process writes into the store, and checks what others have written. Pure.

A record is JSON of at most 64 KiB with its HMAC-SHA256 (RFC 2104) before it. The HMAC covers what
the record is about as well, so that a record which is moved elsewhere does not verify.
"""

from __future__ import annotations

import hmac
import json
from typing import Any, Final

__all__ = ["MAX_BYTES", "NewerFormat", "Signer"]

MAX_BYTES: Final = 65536
"""The longest record, signature included."""

FORMAT: Final = 1
"""Version of the records' format, as ``v`` in each. Unknown fields are ignored; a change that
older processes must not read raises it."""

_DIGITS: Final = 32
"""Hexadecimal digits of the HMAC that are kept: 128 bits (RFC 2104 section 5)."""


class NewerFormat(ValueError):
    """A record has a format that this version of the package does not know."""


class Signer:
    """Signs and checks the records of one app.

    Args:
        key: The key.
        cluster: Name of the app.
    """

    def __init__(self, key: bytes, cluster: str) -> None:
        self._key: Final = key
        self._cluster: Final = cluster
        self._hidden: Final = hmac.new(key, f"hide\0{cluster}\0".encode(), "sha256")

    def sign(self, subject: tuple[str, ...], body: dict[str, Any]) -> bytes:
        """Give the signed record.

        Args:
            subject: What the record is about, e.g. the upstream, the kind and the version.
            body: Its fields.

        Raises:
            ValueError: It is too long.
        """
        text = json.dumps({"v": FORMAT, **body}, separators=(",", ":")).encode()
        record = self._mac(subject, text) + text
        if len(record) > MAX_BYTES:
            raise ValueError(f"the record {subject} has {len(record)} bytes, more than {MAX_BYTES}")
        return record

    def read(self, subject: tuple[str, ...], record: bytes) -> dict[str, Any] | None:
        """Give the fields of a record, ``None`` if it is not signed with the key.

        Raises:
            NewerFormat: A later version of the package has written it.
        """
        mac, text = record[:_DIGITS], record[_DIGITS:]
        if len(record) > MAX_BYTES or not hmac.compare_digest(mac, self._mac(subject, text)):
            return None
        body = json.loads(text)
        if body["v"] > FORMAT:
            raise NewerFormat(f"format {body['v']}")
        return body  # type: ignore[no-any-return]  # signed by a process of the app

    def hide(self, secret: bytes) -> str:
        """Give a digest that only a process with the key can make, 16 bytes."""
        digest = self._hidden.copy()
        digest.update(secret)
        return digest.digest()[:16].hex()

    def _mac(self, subject: tuple[str, ...], text: bytes) -> bytes:
        about = json.dumps([self._cluster, *subject], separators=(",", ":")).encode()
        return (
            hmac.digest(self._key, b"sign\0" + about + b"\0" + text, "sha256")
            .hex()[:_DIGITS]
            .encode()
        )
