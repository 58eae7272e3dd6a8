"""The policy in settings: a built-in name, a reference, or an object; and the hash key."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from fastapi_proxy_di.settings.headers import header_token
from fastapi_proxy_di.settings.similar import similar_name

__all__ = ["POLICIES", "HashKey", "Policy"]

POLICIES: Final = (
    "power_of_two_choices",
    "round_robin",
    "least_requests",
    "random",
    "first",
    "latency",
    "peak_ewma",
    "hash",
    "prefix",
)
"""The built-in policies."""

_REFERENCE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_KEYED: Final = ("header", "cookie", "query")


def _policy(value: object) -> object:
    if isinstance(value, str):
        if value in POLICIES or _REFERENCE.fullmatch(value):
            return value
        similar = similar_name(value.strip().lower().replace("-", "_"), POLICIES)
        hint = f"did you mean {similar!r}? Use" if similar else "use"
        raise ValueError(
            f"{value!r} is not a policy; {hint} {', '.join(POLICIES)}, or package.module:Policy"
        )
    if isinstance(value, type) or not callable(getattr(value, "pick", None)):
        raise ValueError(  # noqa: TRY004 - pydantic makes a fault of a ValueError only
            "is not a policy; give its name or an object that has 'pick'"
        )
    return value


def _policy_text(value: object) -> str:
    if isinstance(value, str):
        return value
    return f"{type(value).__module__}:{type(value).__qualname__}"


def _hash_key(value: object) -> object:
    if isinstance(value, str):
        kind, colon, name = value.partition(":")
        if kind in ("client", "path") and not colon:
            return value
        if kind in _KEYED and name:
            return f"header:{header_token(name)}" if kind == "header" else value
    raise ValueError(
        "is not a hash key; use client, path, header:<name>, cookie:<name> or query:<name>"
    )


if TYPE_CHECKING:
    Policy: TypeAlias = str | Any
else:
    Policy = Annotated[
        str | object,
        BeforeValidator(_policy),
        PlainSerializer(_policy_text, return_type=str, when_used="json"),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "enum": list(POLICIES)},
                    {"type": "string", "pattern": r"^[\w.]+:[\w.]+$"},
                ]
            }
        ),
    ]
    """A built-in name, ``package.module:Policy``, or an object that has ``pick``."""

HashKey = Annotated[str, BeforeValidator(_hash_key)]
"""What the policy ``hash`` hashes."""
