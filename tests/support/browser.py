"""Drives pages in headless Chromium by the browser's debugging protocol (CDP)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.support.chromium import browsing

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

__all__ = ["Browser", "Page", "open_browser"]

_DEADLINE_SECONDS: Final = 40.0
_POLL_SECONDS: Final = 0.05
_KEYS: Final = {"Tab": 9, "Enter": 13, "ArrowDown": 40, "ArrowUp": 38}
"""Codes of the keys that tests press."""


class Page:
    """A page that is open in a browser.

    Attributes:
        log: What the browser has written to the console, since ``watch_console``.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._session: str | None = None
        self.log: list[str] = []

    async def attach(self, target: str) -> None:
        """Direct all further commands to a page of the browser."""
        attached = await self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    async def watch_console(self) -> None:
        """Keep what the browser writes to the console: errors, violations of the policy."""
        await self.send("Log.enable")
        await self.send("Runtime.enable")

    async def go(self, url: str) -> None:
        """Go to a page, and wait until it has loaded."""
        await self.send("Page.navigate", url=url)
        await self.until(f"location.href.startsWith({json.dumps(url)})")
        await self.until("document.readyState === 'complete'")

    async def emulate(self, width: int, height: int, **features: str) -> None:
        """Set the size of the window, and media features such as ``prefers-color-scheme``."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        named = [{"name": name.replace("_", "-"), "value": one} for name, one in features.items()]
        await self.send("Emulation.setEmulatedMedia", features=named)

    async def screenshot(self) -> bytes:
        """Give what the window shows as PNG."""
        reply = await self.send("Page.captureScreenshot", format="png", optimizeForSpeed=False)
        return b64decode(reply["data"])

    async def shows(self, text: str) -> None:
        """Wait until the page shows the text."""
        await self.until(f"document.body?.innerText.includes({json.dumps(text)})")

    async def click(self, selector: str) -> None:
        """Click on the middle of the element, once there is one."""
        found = f"document.querySelector({json.dumps(selector)})"
        await self.until(f"{found} !== null")
        await self.evaluate(f"{found}.scrollIntoViewIfNeeded()")
        box = await self.evaluate(f"{found}.getBoundingClientRect().toJSON()")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            await self.send(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )

    async def type(self, text: str) -> None:
        """Type the text into the focused element."""
        await self.send("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        """Press a key, and let it go."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        await self.send("Input.dispatchKeyEvent", type="keyDown", **named, **text)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **named)

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
        """Give the value of an expression or promise; ``None`` for one that failed."""
        reply = await self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        return reply.get("result", {}).get("value")

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol, and give its result."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        await self._socket.send(json.dumps(command))
        while True:
            message = json.loads(await self._socket.recv())
            if message.get("id") == number:
                result: dict[str, Any] = message.get("result", {})
                return result
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.log.append(json.dumps(message["params"]))


class Browser:
    """A browser that opens pages.

    Args:
        address: Of its debugging protocol.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    @contextlib.asynccontextmanager
    async def page(self) -> AsyncIterator[Page]:
        """Give an empty page, with cookies of its own, until the end of the block."""
        # Here, because websockets 12, with which the suite is collected, has no such module.
        from websockets.asyncio.client import connect

        async with connect(self._address, max_size=None, proxy=None) as socket:
            page = Page(socket)
            context = (await page.send("Target.createBrowserContext"))["browserContextId"]
            target = await page.send(
                "Target.createTarget", url="about:blank", browserContextId=context
            )
            await page.attach(target["targetId"])
            yield page


@contextlib.asynccontextmanager
async def open_browser(profile: Path, *flags: str) -> AsyncIterator[Browser]:
    """Run a browser until the end of the block.

    Args:
        profile: A folder for the browser's files.
        *flags: Further flags of the command.
    """
    async with browsing("about:blank", profile, *flags) as browser:
        yield Browser((await browser.line(r"DevTools listening on (ws://\S+)"))[1])
