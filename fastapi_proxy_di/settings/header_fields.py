"""Header fields in settings: which names and values may stand there.

Owns the refusal of fields that are the proxy's own. Values are secrets; no message
shows one. Knows no model.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, SecretStr

from fastapi_proxy_di.settings.values import TOKEN, AlsoText, split_commas

__all__ = ["HeaderNames", "HeaderValues", "header_name"]

# RFC 9110 §7.6.1 and the fields that frame a message or choose its server.
_OURS: Final = {
    "host": "preserve_host or the destination's URL decides it",
    "content-length": "it frames the message",
    "transfer-encoding": "it frames the message",
    "trailer": "it frames the message",
} | dict.fromkeys(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "upgrade",
    ),
    "it is hop-by-hop and belongs to one connection",
)
# RFC 9110 §5.5; a tab may stand within a value.
_BAD_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def header_name(name: str) -> str:
    """Check a header name and give it in lower case.

    Raises:
        ValueError: It is no RFC 9110 token, or a field that is the proxy's own.
    """
    lowered = name.strip().lower()
    if not TOKEN.fullmatch(lowered):
        raise ValueError(f"{name!r} is not a header name; use letters, digits and '-'")
    if lowered in _OURS:
        raise ValueError(f"{lowered!r} may not be set or removed: {_OURS[lowered]}")
    return lowered


def _checked(values: dict[str, SecretStr]) -> dict[str, SecretStr]:
    checked: dict[str, SecretStr] = {}
    for name, secret in values.items():
        key = header_name(name)
        # A later source comes later in the merged mapping, whatever case it was written in.
        checked.pop(key, None)
        value = secret.get_secret_value().strip(" \t\r\n")
        if _BAD_VALUE.search(value):
            raise ValueError(f"the value of {key!r} holds a line break or control character")
        checked[key] = SecretStr(value)
    return checked


HeaderValues = Annotated[dict[str, SecretStr], AfterValidator(_checked)]
"""Lower-case names to secret values."""

HeaderNames = Annotated[
    tuple[Annotated[str, AfterValidator(header_name)], ...],
    BeforeValidator(split_commas),
    AlsoText("Comma-separated header names."),
]
"""Lower-case names."""
