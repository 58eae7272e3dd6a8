"""A process that counts an attempt each hundredth of a second, and tells each tenth one.

Argument: the store's address.
"""

from __future__ import annotations

import asyncio
import sys

from tests.cluster.counting import CountingProcess


async def main(url: str) -> None:
    """Run until the process is ended."""
    process = CountingProcess(url)
    await process.cluster.start()
    print(f"name {process.name}", flush=True)
    while True:
        process.count()
        await asyncio.sleep(0.01)
        if process.numbers.metrics.requests % 10 == 0:
            print(f"counted {process.numbers.metrics.requests}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
