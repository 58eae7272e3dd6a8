"""Settings of streams and of bodies that are read before a destination is picked."""

from pydantic import Field

from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.numbers import Count

__all__ = ["StreamSettings"]


class StreamSettings(SettingsModel):
    """What is read of bodies of model servers and other services that stream."""

    replay_bytes: Count = Field(
        default=1_048_576,
        description=(
            "Largest JSON body that is read before a destination is picked, and kept to send it"
            " again, where the policy ``prefix`` or an ``ejection.key`` in the body needs it."
        ),
    )
