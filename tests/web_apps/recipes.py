"""Runs a recipe of the how-to "Put a web app under a prefix": the app and the gateway in front."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import httpx

from tests.docs.conftest import SNIPPETS
from tests.support.gateways import until
from tests.support.processes import Process, running
from tests.support.servers import free_port

__all__ = ["HOST", "Recipe", "recipe", "run"]

HOST: Final = "gateway.example"
"""The name by which clients know the gateway: apps trust local names more than others."""
_APP_PORT: Final = "9001"
_GATEWAY_PORT: Final = "8000"
_START_SECONDS: Final = 60.0
_QUIET: Final = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
}
"""Apps that run in tests do not report their use."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe that runs.

    Attributes:
        folder: Where the app runs: a copy of the recipes, and the home of its user.
        gateway: The process in front of the app.
    """

    folder: Path
    gateway: Process

    @property
    def origin(self) -> str:
        """The gateway as its clients know it."""
        return f"http://{HOST}:{self.gateway.port}"

    def client(self, scheme: str = "http") -> httpx.AsyncClient:
        """Give a client that names the gateway as browsers do, and keeps cookies.

        Args:
            scheme: That of the client, whose TLS a proxy in front of the gateway ends.
        """
        return httpx.AsyncClient(
            base_url=self.gateway.url,
            headers={"host": f"{HOST}:{self.gateway.port}", "x-forwarded-proto": scheme},
            trust_env=False,
            timeout=30,
        )


@contextlib.asynccontextmanager
async def recipe(name: str, folder: Path, *preparations: str) -> AsyncIterator[Recipe]:
    """Run ``<name>.sh``, and the gateway with the settings of ``<name>.env``, on free ports.

    Args:
        name: Name of the recipe, and of its files.
        folder: An empty folder, for a copy of the recipes.
        *preparations: Commands that run before the app.
    """
    ports = {_APP_PORT: str(free_port()), _GATEWAY_PORT: str(free_port())}
    shutil.copytree(SNIPPETS / "how_to" / "web_apps", folder, dirs_exist_ok=True)

    def text(file: str) -> str:
        found = (folder / file).read_text().replace("\\\n", " ")
        for written, used in ports.items():
            found = found.replace(written, used)
        return found

    for preparation in preparations:
        await run(preparation, folder)
    settings = dict(pair.split("=", 1) for pair in shlex.split(text(f"{name}.env")))
    async with (
        _serving(text(f"{name}.sh"), folder, {}) as app,
        _serving(text("gateway.sh"), folder, settings) as gateway,
    ):
        app.port, gateway.port = int(ports[_APP_PORT]), int(ports[_GATEWAY_PORT])
        for process in (app, gateway):
            await until(partial(_listens, process), _START_SECONDS)
        yield Recipe(folder, gateway)


async def run(command: str, folder: Path) -> None:
    """Run a command to its end."""
    async with _serving(command, folder, {}) as process:
        assert await process.end() == 0, process.lines


def _serving(
    command: str, folder: Path, settings: dict[str, str]
) -> contextlib.AbstractAsyncContextManager[Process]:
    # `env` takes variables in front of the command, as a shell does.
    words = ["env", *shlex.split(command.replace("python ", f"{sys.executable} ", 1))]
    environment = {"HOME": str(folder), "PYTHONPATH": str(folder), **_QUIET, **settings}
    return running(*words, environment=environment, folder=folder)


def _listens(process: Process) -> bool:
    assert process.status is None, process.lines
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(process.address) == 0
