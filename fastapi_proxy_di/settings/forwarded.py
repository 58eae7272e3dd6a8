"""Settings of forwarding headers."""

from typing import Literal

from pydantic import Field

from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.networks import Networks

__all__ = ["ForwardedSettings"]


class ForwardedSettings(SettingsModel):
    """Forwarding headers, which tell destinations about the client."""

    mode: Literal["set", "append", "off"] = Field(
        default="set",
        description=(
            "``set`` writes X-Forwarded-* anew (YARP), ``append`` extends a trusted peer's, ``off``"
            " adds none. In each mode the forwarding headers of an untrusted peer are removed"
            " first."
        ),
    )

    trusted_proxies: Networks = Field(
        default=(),
        validate_default=True,
        description=(
            "Addresses and networks (CIDR) whose forwarding headers are trusted. Leave it empty"
            " where the server has rewritten the client already, as uvicorn does by default."
        ),
    )

    rfc7239: bool = Field(default=False, description="Whether ``Forwarded`` is sent as well.")

    via: bool = Field(default=True, description="Whether ``Via`` is sent (RFC 9110 §7.6.3).")
