"""Small value types of the settings: comma-separated lists, status codes, networks, ``none``.

Each reads what a person writes in a variable as well as what JSON, TOML or code gives.
Knows no model.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

__all__ = ["OrNone", "StatusCodes"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_RANGE: Final = re.compile(r"(\d{3})(?:\s*-\s*(\d{3}))?", re.ASCII)
# RFC 9110 §5.6.2
TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class AlsoText:
    """Adds "or a text" to the JSON schema of a type that has another form."""

    def __init__(self, description: str) -> None:
        self._text = {"type": "string", "description": description}

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), self._text]}


def split_commas(value: object) -> object:
    """Turn comma-separated text into a list; anything else is left for its type to judge."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _none(value: object) -> object:
    if isinstance(value, str) and value.strip().lower() in ("none", "null", "off"):
        return None
    return value


OrNone: Final = BeforeValidator(_none)
"""Lets a variable say ``none`` (or ``off``) where a class has set something else."""


class StatusCodes(frozenset[int]):
    """A set of HTTP status codes; ``in`` is O(1).

    Args:
        codes: ``"200-399"``, ``"200,204,300-302"``, or numbers and such texts.

    Raises:
        ValueError: A code is not between 100 and 599, or a range is reversed.
    """

    def __new__(cls, codes: str | int | Iterable[int | str] = ()) -> Self:
        """Read the codes."""
        parts = split_commas(codes) if isinstance(codes, str) else codes
        if isinstance(parts, int):
            parts = [parts]
        if not isinstance(parts, Iterable):
            raise ValueError(_STATUS_RIGHT)  # noqa: TRY004 - becomes a fault
        found: set[int] = set()
        for part in parts:
            match = _RANGE.fullmatch(str(part).strip())
            if match is None:
                raise ValueError(f"{part!r} is not a status; {_STATUS_RIGHT}")
            first = int(match[1])
            last = int(match[2] or first)
            if not 100 <= first <= last <= 599:
                raise ValueError(f"{part!r} is out of range; {_STATUS_RIGHT}")
            found.update(range(first, last + 1))
        return super().__new__(cls, found)

    def __str__(self) -> str:
        ranges: list[list[int]] = []
        for code in sorted(self):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
        return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)

    def __repr__(self) -> str:
        return f"StatusCodes({str(self)!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls,
            serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="json"),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        code = {"type": "integer", "minimum": 100, "maximum": 599}
        text = {"type": "string", "description": "Codes and ranges, e.g. 200,204,300-302."}
        return {"anyOf": [text, code, {"type": "array", "items": {"anyOf": [code, text]}}]}


_STATUS_RIGHT: Final = "give codes from 100 to 599 and ranges, e.g. 502,503 or 200-399"


def _method(value: str) -> str:
    if not TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} is not a method; give names such as GET,HEAD")
    return value.upper()


Method = Annotated[str, AfterValidator(_method)]
Methods = Annotated[
    frozenset[Method],
    BeforeValidator(split_commas),
    PlainSerializer(sorted, return_type=list[str], when_used="json"),
    AlsoText("Comma-separated methods."),
]


def _network(value: object) -> object:
    if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return value
    try:
        return ipaddress.ip_network(str(value).strip())
    except ValueError as error:
        raise ValueError(
            f"{error}; give addresses or networks such as 10.0.0.0/8 or fd00::/8"
            " (0.0.0.0/0 and ::/0 trust everybody)"
        ) from None


Networks = Annotated[
    tuple[Annotated[Network, BeforeValidator(_network)], ...],
    BeforeValidator(split_commas),
    AlsoText("Comma-separated addresses and networks."),
]
