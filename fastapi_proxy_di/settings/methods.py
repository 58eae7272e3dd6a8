"""Request methods in settings: comma-separated or listed, in upper case."""

from collections.abc import Iterable
from http import HTTPMethod
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

from fastapi_proxy_di.settings.headers import TOKEN
from fastapi_proxy_di.settings.similar import similar_name
from fastapi_proxy_di.settings.text import AlsoText, split_commas

__all__ = ["Methods"]


def _method(value: str) -> str:
    if not TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} is not a method; give names such as GET,HEAD")
    method = value.upper()
    known = [str(one) for one in HTTPMethod]
    # Others are allowed (PURGE, PROPFIND), unless they look like a misspelt one (POTS).
    if method not in known and (similar := similar_name(method, known, 0.75)):
        raise ValueError(f"{value!r} is not a known method; did you mean {similar}?")
    return method


def _listed(methods: frozenset[str]) -> list[str]:
    return sorted(methods)


if TYPE_CHECKING:

    class Methods:
        """A field that accepts text and names of methods, and gives a set of them."""

        def __get__(self, instance: object, owner: type | None = None) -> frozenset[str]: ...

        def __set__(self, instance: object, value: str | Iterable[str]) -> None: ...

else:
    Methods = Annotated[
        frozenset[Annotated[str, AfterValidator(_method)]],
        BeforeValidator(split_commas),
        PlainSerializer(_listed, when_used="json"),
        AlsoText("Comma-separated methods."),
    ]
    """A set of methods."""
