"""Settings that belong to an app, not to one of its upstreams."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field
from pydantic_settings import SettingsConfigDict

from fastapi_proxy_di.settings.cluster import ClusterSettings
from fastapi_proxy_di.settings.layered import LayeredSettings
from fastapi_proxy_di.settings.telemetry import TelemetrySettings

__all__ = ["ProxySettings"]


def _reload(value: object) -> object:
    return "off" if value is False else value  # what YAML makes of it


if TYPE_CHECKING:
    OpenReload: TypeAlias = Literal["off", "watch", "signal"] | Any
else:
    OpenReload = Annotated[Literal["off", "watch", "signal"], BeforeValidator(_reload)]


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

    reload: OpenReload = Field(
        default="off",
        description=(
            "When settings are read anew without a restart: ``watch`` when a file of settings or"
            " a certificate changes, ``signal`` on SIGHUP, where the process is a lone uvicorn or"
            " ``serve`` without workers; ``off`` never."
        ),
    )

    cluster: ClusterSettings = Field(
        default=ClusterSettings(),
        description="State that all processes of the app share, through Redis or Valkey.",
    )
