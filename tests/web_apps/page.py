"""Drives a page in headless Chromium by the browser's debugging protocol (CDP)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect

from tests.support.chromium import browsing

__all__ = ["Page", "open_page"]

_DEADLINE_SECONDS: Final = 40.0
_POLL_SECONDS: Final = 0.05


class Page:
    """A page that is open in a browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._session: str | None = None

    async def attach(self) -> None:
        """Direct all further commands to the browser's page."""
        targets = (await self._send("Target.getTargets"))["targetInfos"]
        (page,) = [one["targetId"] for one in targets if one["type"] == "page"]
        attached = await self._send("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]

    async def shows(self, text: str) -> None:
        """Wait until the page shows the text."""
        await self.until(f"document.body?.innerText.includes({json.dumps(text)})")

    async def click(self, selector: str) -> None:
        """Click on the middle of the element, once there is one."""
        await self.until(f"document.querySelector({json.dumps(selector)}) !== null")
        box = await self.evaluate(
            f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()"
        )
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            await self._send(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )

    async def type(self, text: str) -> None:
        """Type the text into the focused element."""
        await self._send("Input.insertText", text=text)

    async def until(self, condition: str) -> None:
        """Wait until an expression in JavaScript is true; it may fail while the page loads."""
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                while await self.evaluate(condition) is not True:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            shown = await self.evaluate("location.href + ' shows: ' + document.body?.innerText")
            raise AssertionError(f"never true: {condition}; {shown}") from None

    async def evaluate(self, expression: str) -> Any:
        """Give the value of an expression in JavaScript; ``None`` for one that failed."""
        reply = await self._send("Runtime.evaluate", expression=expression, returnByValue=True)
        return reply.get("result", {}).get("value")

    async def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        await self._socket.send(json.dumps(command))
        while True:
            message = json.loads(await self._socket.recv())
            if message.get("id") == number:  # all others are events
                result: dict[str, Any] = message.get("result", {})
                return result


@contextlib.asynccontextmanager
async def open_page(url: str, profile: Path, host: str) -> AsyncIterator[Page]:
    """Keep a page open until the end of the block.

    Args:
        url: The page.
        profile: A folder for the browser's files.
        host: The name that means this machine to the browser.
    """
    names = f"--host-resolver-rules=MAP {host} 127.0.0.1"
    async with browsing(url, profile, names) as browser:
        address = (await browser.line(r"DevTools listening on (ws://\S+)"))[1]
        async with connect(address, max_size=None, proxy=None) as socket:
            page = Page(socket)
            await page.attach()
            yield page
