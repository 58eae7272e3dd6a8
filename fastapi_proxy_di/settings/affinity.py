"""Settings of affinity: how a client is kept on one destination."""

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fastapi_proxy_di.settings.durations import OptionalDuration
from fastapi_proxy_di.settings.headers import TOKEN, header_token
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.text import OptionalSecret, OrNone

__all__ = ["AffinitySettings"]

_KEY_CHARACTERS: Final = 16
"""The shortest key; as hexadecimal digits it has 64 bits, too many to guess."""


_LABEL: Final = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
"""A domain name (RFC 1123 section 2.1), so nothing that ends the attribute or the header."""
_DOMAIN_CHARACTERS: Final = 253


def _domain(value: str | None) -> str | None:
    if value is None:
        return None
    # RFC 6265 section 5.2.3: browsers ignore the leading dot.
    domain = value.strip().lower().removeprefix(".")
    if len(domain) > _DOMAIN_CHARACTERS or not _DOMAIN.fullmatch(domain):
        raise ValueError(
            f"{value!r} is not a domain; give a name such as example.com, without scheme and port"
        )
    return domain


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _cookie_name(value: str | None) -> str | None:
    if value is not None and not TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} is not a cookie name; use letters, digits, '-' and '_'")
    return value


def _header(value: str | None) -> str | None:
    return None if value is None else header_token(value)


if TYPE_CHECKING:

    class SameSite:
        """A field that accepts the spelling of the attribute too, and gives lower case."""

        def __get__(
            self, instance: object, owner: type | None = None
        ) -> Literal["lax", "strict", "none"]: ...

        def __set__(
            self,
            instance: object,
            value: Literal["lax", "strict", "none", "Lax", "Strict", "None"],
        ) -> None: ...

else:
    SameSite = Annotated[Literal["lax", "strict", "none"], BeforeValidator(_lower)]


class AffinitySettings(SettingsModel):
    """Keeps a client on one destination, by a signed cookie, a header or an issued id."""

    cookie: Annotated[str | None, AfterValidator(_cookie_name), OrNone] = Field(
        default=None,
        description=(
            "Name of the cookie. It is signed, HttpOnly, and Secure if the client uses HTTPS."
        ),
    )

    header: Annotated[str | None, AfterValidator(_header), OrNone] = Field(
        default=None,
        description="Name of the header whose value chooses the destination, instead of a cookie.",
    )

    issue: bool = Field(
        default=False,
        description=(
            "Whether the upstream issues the value of ``header`` in its responses, as MCP servers"
            " do with ``mcp-session-id``. The value then gets a mark, which leads back to the"
            " destination that issued it and is removed on the way there."
        ),
    )

    key: OptionalSecret = Field(
        default=None,
        validate_default=True,
        description=(
            "Secret that signs the cookie, or the mark of ``issue``, 16 characters or more; the"
            " same in all workers. Required with ``cookie`` and ``issue``."
        ),
    )

    same_site: SameSite = Field(
        default="lax",
        validate_default=True,
        description=(
            "SameSite of the cookie. ``none`` sends it from pages of other sites too, for example"
            " in an iframe; the cookie is then always Secure, so clients need HTTPS."
        ),
    )

    max_age: OptionalDuration = Field(
        default=None,
        validate_default=True,
        description=(
            "Seconds that browsers keep the cookie after it was set; none until the browser's"
            " session ends."
        ),
    )

    domain: Annotated[str | None, AfterValidator(_domain), OrNone] = Field(
        default=None,
        description=(
            "Domain whose hosts get the cookie, for example ``example.com``; none for the host of"
            " the response alone."
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
            for name, signed in (("cookie", "which"), ("issue", "whose marks")):
                if info.data.get(name):
                    raise ValueError(
                        f"is required with {name!r}, {signed} it signs; set it, e.g. to what"
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
        if self.cookie is None:
            for name in ("same_site", "max_age", "domain"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name!r} is about the cookie; set 'cookie' instead of 'header'"
                    )
        elif self.issue:
            raise ValueError("'issue' is about the header; set 'header' instead of 'cookie'")
        elif self.domain is not None and self.cookie.startswith("__Host-"):
            raise ValueError(
                "a cookie whose name begins with '__Host-' has no domain (RFC 6265bis section"
                " 4.1.3.2); leave out 'domain', or rename the cookie"
            )
        return self
