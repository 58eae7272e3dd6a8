"""Settings of affinity: how a client is kept on one destination."""

from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fastapi_proxy_di.settings.headers import TOKEN, header_token
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.text import OrNone

__all__ = ["AffinitySettings"]

_KEY_CHARACTERS: Final = 16
"""The shortest key; as hexadecimal digits it has 64 bits, too many to guess."""


def _cookie_name(value: str | None) -> str | None:
    if value is not None and not TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} is not a cookie name; use letters, digits, '-' and '_'")
    return value


def _header(value: str | None) -> str | None:
    return None if value is None else header_token(value)


class AffinitySettings(SettingsModel):
    """Keeps a client on one destination, by a signed cookie or by a header."""

    cookie: Annotated[str | None, AfterValidator(_cookie_name), OrNone] = Field(
        default=None,
        description=(
            "Name of the cookie. It is signed, HttpOnly, SameSite=Lax, and Secure as the request."
        ),
    )

    header: Annotated[str | None, AfterValidator(_header), OrNone] = Field(
        default=None,
        description="Name of the header whose value chooses the destination, instead of a cookie.",
    )

    key: SecretStr | None = Field(
        default=None,
        description=(
            "Secret that signs the cookie, 16 characters or more; the same in all workers. Required"
            " with ``cookie``."
        ),
    )

    on_missing: Literal["redistribute", "fail"] = Field(
        default="redistribute",
        description="When the destination is not available: choose another (YARP), or 503.",
    )

    @field_validator("key")
    @classmethod
    def _strong(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None:
            # Checked here, so that the fault names the key's own variable.
            if info.data.get("cookie") is not None:
                raise ValueError(
                    "is required with 'cookie', which it signs; set it, e.g. to what"
                    " `openssl rand -hex 32` prints"
                )
        elif len(value.get_secret_value().strip()) < _KEY_CHARACTERS:
            raise ValueError(
                f"is shorter than {_KEY_CHARACTERS} characters; give a long random text"
            )
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.cookie is None) == (self.header is None):
            raise ValueError("needs one of 'cookie' and 'header'")
        return self
