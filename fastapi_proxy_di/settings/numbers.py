"""Numbers in settings that several models have: counts, optional limits, shares."""

from typing import Annotated

from pydantic import Field

from fastapi_proxy_di.settings.text import OrNone

__all__ = ["AtLeastOne", "Count", "OptionalLimit", "Share"]

Count = Annotated[int, Field(ge=0)]
"""A whole number, 0 allowed."""

AtLeastOne = Annotated[int, Field(ge=1)]
"""A whole number, 1 or more."""

OptionalLimit = Annotated[int | None, Field(ge=1), OrNone]
"""A whole number of 1 or more, or none for no limit."""

Share = Annotated[float, Field(ge=0, le=1)]
"""A part of the whole, from 0 to 1."""
