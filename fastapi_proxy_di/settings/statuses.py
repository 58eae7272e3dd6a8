"""HTTP status codes in settings: numbers, ranges and lists of both, as a set."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from fastapi_proxy_di.settings.text import split_commas

__all__ = ["StatusCodes", "StatusCodesField"]

_RANGE: Final = re.compile(r"(\d{3})(?:\s*-\s*(\d{3}))?", re.ASCII)
_RIGHT: Final = "give codes from 100 to 599 and ranges, e.g. 502,503 or 200-399"


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
            raise ValueError(_RIGHT)  # noqa: TRY004 - becomes a fault
        found: set[int] = set()
        for part in parts:
            match = _RANGE.fullmatch(str(part).strip())
            if match is None:
                raise ValueError(f"{part!r} is not a status; {_RIGHT}")
            first = int(match[1])
            last = int(match[2] or first)
            if not 100 <= first <= last <= 599:
                raise ValueError(f"{part!r} is out of range; {_RIGHT}")
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


if TYPE_CHECKING:

    class StatusCodesField:
        """A field that accepts all that ``StatusCodes`` reads, and gives ``StatusCodes``."""

        def __get__(self, instance: object, owner: type | None = None) -> StatusCodes: ...

        def __set__(self, instance: object, value: str | int | Iterable[int | str]) -> None: ...

else:
    StatusCodesField = StatusCodes
