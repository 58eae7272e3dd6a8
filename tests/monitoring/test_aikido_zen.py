"""Aikido Zen blocks the same on a proxied route as on an ordinary one.

Zen runs as users run it, with its own process beside the gateway's. Only its servers are replaced,
by one on this machine that gives the lists; nothing is sent anywhere.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.monitoring.apps import MOUNTS
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.processes import running

pytestmark = pytest.mark.e2e

_BLOCKED = [(b"x-forwarded-for", b"203.0.113.7")]
_LISTS = {
    "success": True,
    "blockedIPAddresses": [
        {"key": "test", "source": "test", "description": "a list", "ips": ["203.0.113.0/24"]}
    ],
    "allowedIPAddresses": [],
    "blockedUserAgents": "BadBot",
}


def _endpoint(route: str, **rules: Any) -> dict[str, Any]:
    never = {"enabled": False, "maxRequests": 0, "windowSizeInMS": 0}
    return {
        "method": "*",
        "route": route,
        "forceProtectionOff": False,
        "rateLimiting": never,
        **rules,
    }


_CONFIG = {
    "success": True,
    "configUpdatedAt": 1,
    "block": True,
    "blockedUserIds": ["mallory"],
    "allowedIPAddresses": [],
    "receivedAnyStats": True,
    "endpoints": [
        _endpoint(f"{prefix}/{name}/admin", allowedIPAddresses=["198.51.100.1"])
        for prefix in ("", "/v1", "/tenants/acme")
        for name in ("ordinary", "billing")
    ]
    + [
        _endpoint(
            f"/{name}/limited",
            rateLimiting={"enabled": True, "maxRequests": 2, "windowSizeInMS": 3_600_000},
        )
        for name in ("ordinary", "billing")
    ],
}


class _Lists(BaseHTTPRequestHandler):
    """Replaces Zen's servers."""

    def _give(self, what: Mapping[str, Any]) -> None:
        body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._give(_LISTS if self.path.endswith("firewall/lists") else _CONFIG)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._give(_CONFIG)

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture
def zen() -> Iterator[dict[str, str]]:
    """Environment of a gateway whose Zen asks the replaced servers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Lists)
    thread = threading.Thread(target=server.serve_forever, name="Zen's server", daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/"
    # The path of Zen's socket must be short, so not pytest's folder.
    with TemporaryDirectory(prefix="zen") as folder:
        yield {
            "AIKIDO_TOKEN": "AIK_RUNTIME_1_1_test",
            "AIKIDO_ENDPOINT": url,
            "AIKIDO_REALTIME_ENDPOINT": url,
            "AIKIDO_TMP_DIR": folder,
            "AIKIDO_BLOCK": "true",
        }
    server.shutdown()
    thread.join()
    server.server_close()


ASKED = {
    "blocked address": ("/a/b", _BLOCKED),
    "blocked address, bare path": ("/", _BLOCKED),
    "blocked address, odd path": ("/a%2Fb", _BLOCKED),
    "blocked user agent": ("/a/b", [(b"user-agent", b"BadBot/1.0")]),
    "blocked user": ("/a/b", [(b"x-user", b"mallory")]),
    "path for some addresses": ("/admin", [(b"x-forwarded-for", b"192.0.2.1")]),
}


@pytest.mark.timeout(120)
async def test_zen_blocks_the_same_on_ordinary_and_proxied_routes(
    zen: dict[str, str],
) -> None:
    """Addresses, user agents, users, paths and rates; the upstream is not reached."""
    async with ScriptedOrigin(always(response_bytes(203, b"constant"))) as origin:
        command = [sys.executable, "-m", "tests.monitoring.zen_gateway", origin.url]
        async with running(*command, environment=zen) as gateway:
            port = await gateway.line(r"Uvicorn running on http://127.0.0.1:(\d+)")
            address = ("127.0.0.1", int(port[1]))
            await _until_it_blocks(address)
            origin.requests.clear()

            for mount in MOUNTS.values():
                for name, (path, headers) in ASKED.items():
                    ordinary, proxied = [
                        await fetch(address, target=mount.format(name=side) + path, headers=headers)
                        for side in ("ordinary", "billing")
                    ]
                    assert (ordinary.status, ordinary.body) == (403, proxied.body), name
                    assert proxied.status == 403, name
            assert not origin.requests

            # By rate: two pass, the third does not.
            rates = [
                [(await fetch(address, target=f"/{side}/limited")).status for _ in range(3)]
                for side in ("ordinary", "billing")
            ]
            assert rates == [[203, 203, 429], [203, 203, 429]]
            assert len(origin.requests) == 2

            # Not blocked: it reaches the upstream, with the body that Zen has looked into.
            reply = await fetch(address, "POST", "/billing/a", body=b"a=1")
            assert reply.status == 203
            assert origin.requests[-1].body == b"a=1"


async def _until_it_blocks(address: tuple[str, int]) -> None:
    """Wait until Zen has loaded its lists, which it does in the background."""
    async with asyncio.timeout(60):
        for headers in (_BLOCKED, [(b"x-user", b"mallory")]):
            status = 0
            while status != 403:
                await asyncio.sleep(0.2)
                status = (await fetch(address, target="/ordinary/a", headers=headers)).status
