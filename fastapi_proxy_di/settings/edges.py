"""Settings of the two edges: forwarding headers, TLS, WebSockets, affinity."""

from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    FilePath,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fastapi_proxy_di.settings.durations import Duration
from fastapi_proxy_di.settings.header_fields import header_token
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.values import TOKEN, Networks, OrNone

__all__ = ["AffinitySettings", "ForwardedSettings", "TlsSettings", "WebSocketSettings"]


class ForwardedSettings(SettingsModel):
    """What destinations are told of the client."""

    mode: Literal["set", "append", "off"] = "set"
    """``set`` writes X-Forwarded-* anew (YARP), ``append`` extends a trusted peer's, ``off``
    adds none. In each mode those of an untrusted peer are removed first."""

    trusted_proxies: Networks = ()
    """Addresses and networks (CIDR) whose forwarding headers are believed. Leave it empty
    where the server has rewritten the client already, as uvicorn does by default."""

    rfc7239: bool = False
    """Whether ``Forwarded`` is sent as well."""

    via: bool = True
    """Whether ``Via`` is sent (RFC 9110 §7.6.3)."""


class TlsSettings(SettingsModel):
    """TLS towards ``https://`` destinations; by default verified with the system's roots."""

    ca_file: Annotated[FilePath | None, OrNone] = None
    """PEM file with the roots to trust instead of the system's."""

    client_cert: Annotated[FilePath | None, OrNone] = None
    """PEM file with the certificate that is shown to destinations."""

    client_key: Annotated[FilePath | None, OrNone] = None
    """PEM file with its key, if it is not in the same file."""

    verify: bool = True
    """Whether certificates are checked. Off is for tests only."""

    server_name: Annotated[str | None, OrNone] = None
    """Name that is asked for (SNI) and checked, instead of the URL's host."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.client_key is not None and self.client_cert is None:
            raise ValueError("client_key is given without client_cert; give both")
        if self.ca_file is not None and not self.verify:
            raise ValueError("ca_file has no effect with verify=false; drop one of the two")
        return self


class WebSocketSettings(SettingsModel):
    """WebSockets towards destinations."""

    max_message_bytes: Annotated[int | None, Field(ge=1), OrNone] = None
    """Largest message from a destination; none for no limit. The other way the server's own
    limit holds (uvicorn: 16 MiB)."""

    ping_interval: Annotated[Duration | None, OrNone] = 20.0
    """Seconds between pings, so that idle tunnels live (uvicorn: 20); none for no pings."""

    ping_timeout: Annotated[Duration | None, OrNone] = 20.0
    """Seconds without a pong until the tunnel is broken (uvicorn: 20); none for never."""

    open_timeout: Duration = 10.0
    """Seconds for the handshake (websockets: 10)."""

    compression: bool = False
    """Whether permessage-deflate is offered to destinations."""


_KEY_CHARACTERS: Final = 16
"""As hexadecimal digits 64 bits: the fewest that nobody guesses by trying."""


def _cookie_name(value: str | None) -> str | None:
    if value is not None and not TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} is not a cookie name; use letters, digits, '-' and '_'")
    return value


def _header(value: str | None) -> str | None:
    return None if value is None else header_token(value)


class AffinitySettings(SettingsModel):
    """Keeps a client on one destination, by a signed cookie or by a header."""

    cookie: Annotated[str | None, AfterValidator(_cookie_name), OrNone] = None
    """Name of the cookie. It is signed, HttpOnly, SameSite=Lax, and Secure as the request."""

    header: Annotated[str | None, AfterValidator(_header), OrNone] = None
    """Name of the header whose value chooses the destination, instead of a cookie."""

    key: SecretStr | None = None
    """Secret that signs the cookie, 16 characters or more; the same in all workers. Required
    with ``cookie``."""

    on_missing: Literal["redistribute", "fail"] = "redistribute"
    """When the destination is not available: choose another (YARP), or 503."""

    @field_validator("key")
    @classmethod
    def _strong(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None:
            # Told here, so that the fault names the key's own variable.
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
