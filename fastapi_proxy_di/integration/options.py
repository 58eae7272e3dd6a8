"""``ForwardOptions``: the options of one request, returned by a dependency of the mount."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi_proxy_di.forwarding.overrides import Overrides, overrides_of
from fastapi_proxy_di.wire.headers import HeaderArgument


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardOptions:
    """Options of one request, returned by the dependency ``proxy_router(options=...)``.

    Attributes:
        headers: Headers to set on the request to the destination, e.g. an exchanged token.
        timeout: Seconds for the whole exchange, instead of ``timeouts.total``; for a
            WebSocket, seconds for its handshake.
        affinity_key: The key that the policy ``hash`` hashes, instead of ``hash_key``.
        override_host: The Host header, instead of the destination's.
        destination: As in `Balancer.forward`.
    """

    headers: HeaderArgument | None = None
    timeout: float | None = None
    affinity_key: str | None = None
    override_host: str | None = None
    destination: str | None = None


def options_overrides(options: ForwardOptions, mount: Overrides | None) -> Overrides | None:
    """Give the validated overrides of a request's options, with the mount's transforms and tap."""
    chosen = overrides_of(
        additional=options.headers,
        host=options.override_host,
        timeout=options.timeout,
        destination=options.destination,
    )
    if chosen is None or mount is None:
        return chosen or mount
    chosen.transforms = mount.transforms
    chosen.tap = mount.tap
    return chosen
