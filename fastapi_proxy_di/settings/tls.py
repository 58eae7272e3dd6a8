"""Settings of TLS towards destinations."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, FilePath, model_validator

from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.text import OrNone

__all__ = ["TlsSettings"]


if TYPE_CHECKING:

    class OptionalFile:
        """A field that accepts a path as text too, and gives a ``Path`` or ``None``."""

        def __get__(self, instance: object, owner: type | None = None) -> Path | None: ...

        def __set__(self, instance: object, value: str | os.PathLike[str] | None) -> None: ...

else:
    OptionalFile = Annotated[FilePath | None, OrNone]


class TlsSettings(SettingsModel):
    """TLS towards ``https://`` destinations; by default verified with the system's roots."""

    ca_file: OptionalFile = Field(
        default=None,
        validate_default=True,
        description="PEM file with the roots to trust instead of the system's.",
    )

    client_cert: OptionalFile = Field(
        default=None,
        validate_default=True,
        description="PEM file with the certificate that is shown to destinations.",
    )

    client_key: OptionalFile = Field(
        default=None,
        validate_default=True,
        description="PEM file with the certificate's key, if the key is not in the same file.",
    )

    verify: bool = Field(
        default=True, description="Whether certificates are checked. Off is for tests only."
    )

    server_name: Annotated[str | None, OrNone] = Field(
        default=None,
        description=(
            "Server name to send (SNI) and to check, instead of the URL's host. Not for dynamic"
            " destinations (``allowed_destinations``): each is verified by its own host."
        ),
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.client_key is not None and self.client_cert is None:
            raise ValueError("client_key is given without client_cert; give both")
        if self.ca_file is not None and not self.verify:
            raise ValueError("ca_file has no effect with verify=false; drop one of the two")
        return self
