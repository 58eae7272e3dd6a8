"""``reload_upstreams``: changes the settings of a running app from its own code."""

from __future__ import annotations

from starlette.applications import Starlette

from fastapi_proxy_di.errors import ProxyNotStarted
from fastapi_proxy_di.integration.lifespan import runtime_of
from fastapi_proxy_di.integration.mounts import MountedUpstream

__all__ = ["reload_upstreams"]


async def reload_upstreams(app: Starlette | MountedUpstream) -> dict[str, tuple[str, ...]]:
    """Read all settings of an app anew, and put them in force without a restart.

    Environment, ``.env`` files, secrets directories, TOML, YAML and JSON files, declared classes
    and certificates are read as at the start, and all upstreams change together. Requests under
    way end by the settings that they began with. Settings that code gave as an instance stay.

    Args:
        app: The app whose lifespan is running; in place of it a `proxy_app` that is served alone.

    Returns:
        By name of the upstream, the fields that have changed, such as ``timeouts.connect``.

    Raises:
        SettingsError: Every fault of every upstream; nothing has changed. The faults are logged as
            well, and each upstream emits `ReloadFailed`.
        ProxyNotStarted: No lifespan ran.
    """
    runtime = runtime_of(app, "there are no settings to reload")
    if runtime.reloader is None:
        raise ProxyNotStarted("there are no settings to reload, because the app is still starting")
    return await runtime.reloader.reload()
