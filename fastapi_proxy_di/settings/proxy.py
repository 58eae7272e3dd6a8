"""Settings that belong to an app, not to one of its upstreams."""

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from fastapi_proxy_di.settings.layered import LayeredSettings
from fastapi_proxy_di.settings.telemetry import TelemetrySettings

__all__ = ["ProxySettings"]


class ProxySettings(LayeredSettings):
    """Settings of all upstreams of an app together, read when the app starts.

    Variables begin with ``FASTAPI_PROXY_``, those of nested fields have ``__`` in between:
    ``FASTAPI_PROXY_TELEMETRY__TRACING=false``. In code they are given before the app starts:

    ```python
    proxy_lifespan.configure(app, ProxySettings(request_id=True))
    ```

    The sources and their order are those of `UpstreamSettings`.

    Raises:
        pydantic.ValidationError: On construction, with every fault.
        SettingsError: A file cannot be read.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="FASTAPI_PROXY_")

    telemetry: TelemetrySettings = Field(
        default=TelemetrySettings(), description="Traces, metrics and trace headers."
    )

    request_id: bool = Field(
        default=False,
        description=(
            "Whether each request has an ``X-Request-ID``: the client's if it matches"
            " ``[A-Za-z0-9._-]{1,64}``, else a new one. Sent to the destination and back to the"
            " client."
        ),
    )
