"""A process of a fleet on its own: prints the monotonic time of each probe that it sends.

Argument: the store's address.
"""

from __future__ import annotations

import asyncio
import sys

from tests.cluster.fleet import Process


class _Printed(list[tuple[float, str]]):
    def append(self, probe: tuple[float, str]) -> None:
        """Print the time of a probe."""
        print(f"probe {probe[0]}", flush=True)


async def main(url: str) -> None:
    """Run until the process is ended."""
    process = Process(url)
    process.probed = _Printed()
    await process.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
