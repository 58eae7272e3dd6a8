"""The upstreams of one app, started together and closed together. Knows no FastAPI.

Start is all or nothing: when one upstream cannot start, those that did are closed again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping

from fastapi_proxy_di.assembly import Assembly
from fastapi_proxy_di.balancer import Balancer
from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.events import Events
from fastapi_proxy_di.settings import Mention, UpstreamSettings, load_all, unknown_variables

_logger = logging.getLogger("fastapi_proxy_di.settings")


class Runtime:
    """Everything that runs for one app.

    Attributes:
        balancers: By upstream name.
        events: Where changes of state are told.
    """

    def __init__(self) -> None:
        self.balancers: dict[str, Balancer] = {}
        self.events: Events = Events()
        self._assemblies: list[Assembly] = []

    async def start(self, mentions: Mapping[str, Mention]) -> None:
        """Validate, assemble and start the upstreams; probe each destination once.

        Args:
            mentions: By name.

        Raises:
            SettingsError: Every fault of every upstream.
        """
        settings = load_all(mentions)
        for warning in _unread_variables(settings):
            _logger.warning(warning)
        try:
            self._assemble(settings)
            # All of them end before one's failure is told: what still starts cannot be closed.
            starts = await asyncio.gather(
                *(assembly.start() for assembly in self._assemblies), return_exceptions=True
            )
            for failure in filter(None, starts):
                raise failure
        except BaseException:
            await self.aclose()
            raise
        self.balancers = {
            assembly.settings.name: Balancer(assembly) for assembly in self._assemblies
        }

    async def aclose(self) -> None:
        """Close all upstreams; one that fails to close is logged and stops no other."""
        assemblies, self._assemblies = self._assemblies, []
        self.balancers = {}
        results = await asyncio.gather(
            *(assembly.aclose() for assembly in assemblies), return_exceptions=True
        )
        for assembly, result in zip(assemblies, results, strict=True):
            if isinstance(result, Exception):
                _logger.error("closing %s failed", assembly.settings.name, exc_info=result)

    def _assemble(self, settings: Mapping[str, UpstreamSettings]) -> None:
        faults: list[str] = []
        for name, one in settings.items():
            try:
                self._assemblies.append(Assembly(one, events=self.events))
            except ValueError as error:
                faults.append(f"upstream {name!r}: {error}")
        if faults:
            raise SettingsError("\n".join(("Settings are not valid:", *(f"- {f}" for f in faults))))


def _unread_variables(settings: Mapping[str, UpstreamSettings]) -> list[str]:
    return [
        warning
        for name, one in settings.items()
        for warning in unknown_variables(type(one), os.environ, settings.keys() - {name})
    ]
