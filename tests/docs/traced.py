"""The gateway of ``how_to/access_log.py`` in a process that has a provider of traces."""

from access_log import app
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

__all__ = ["app"]

trace.set_tracer_provider(TracerProvider())
