"""Load generator for loads that wrk cannot drive: large transfers, event streams, tunnels.

Runs as a process of its own, pinned beside the origin. It prints `ready`, waits for a line, works,
prints its result as one JSON line, and keeps its connections until the next line. It speaks HTTP
and WebSocket by hand, to use little CPU.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Final

import uvloop

from tests.benchmarks.exchange import HttpExchange
from tests.benchmarks.tunnel import Tunnel
from tests.benchmarks.wire_format import API_KEY, API_KEY_HEADER, TRANSFER_BYTES

_OPENING_AT_ONCE: Final = 64
_OPEN_ALL_SECONDS: Final = 40.0
_TRANSFER_SECONDS: Final = 120.0


async def _wait_for_line() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def _request(arguments: argparse.Namespace, method: str, target: str, *extra: str) -> bytes:
    lines = (
        f"{method} {target} HTTP/1.1",
        f"host: 127.0.0.1:{arguments.port}",
        f"{API_KEY_HEADER}: {API_KEY}",
        *extra,
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _run_exchange(port: int, exchange: HttpExchange) -> None:
    await asyncio.get_running_loop().create_connection(lambda: exchange, "127.0.0.1", port)
    await exchange.finished


async def _transfers(arguments: argparse.Namespace, *, upload: bool) -> dict[str, object]:
    if upload:
        length = f"content-length: {TRANSFER_BYTES}"
        head = _request(arguments, "POST", arguments.path, length)
    else:
        head = _request(arguments, "GET", arguments.path)
    exchanges = [
        HttpExchange(head, upload_bytes=TRANSFER_BYTES if upload else 0)
        for _ in range(arguments.connections)
    ]
    started = time.perf_counter()
    durations_ms: list[float] = []

    async def transfer(exchange: HttpExchange) -> None:
        await _run_exchange(arguments.port, exchange)
        complete = (
            exchange.small_body == str(TRANSFER_BYTES).encode()
            if upload
            else exchange.body_bytes == TRANSFER_BYTES
        )
        if not complete:
            raise OSError("transfer incomplete")
        durations_ms.append((time.perf_counter() - started) * 1e3)

    errors = await _gather([transfer(e) for e in exchanges], _TRANSFER_SECONDS)
    return _result(len(durations_ms), time.perf_counter() - started, durations_ms, errors)


async def _event_streams(arguments: argparse.Namespace) -> dict[str, object]:
    target = f"{arguments.path}?events={arguments.events}&interval={arguments.interval}"
    head = _request(arguments, "GET", target)
    exchanges = [HttpExchange(head, events=True) for _ in range(arguments.connections)]
    started = time.perf_counter()
    deadline = arguments.events * arguments.interval * 3 + 5
    failures = await _gather([_run_exchange(arguments.port, e) for e in exchanges], deadline)
    delays_ms = [delay for exchange in exchanges for delay in exchange.delays_ms]
    missing = arguments.events * arguments.connections - len(delays_ms)
    elapsed = time.perf_counter() - started
    return _result(len(delays_ms), elapsed, delays_ms, max(failures, missing))


async def _open_tunnels(
    arguments: argparse.Namespace, tunnels: Sequence[Tunnel], durations_ms: list[float]
) -> int:
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(_OPENING_AT_ONCE)

    async def open_one(tunnel: Tunnel) -> None:
        async with gate:
            started = time.perf_counter()
            await loop.create_connection(lambda: tunnel, "127.0.0.1", arguments.port)
            await tunnel.opened
            durations_ms.append((time.perf_counter() - started) * 1e3)

    return await _gather([open_one(t) for t in tunnels], _OPEN_ALL_SECONDS)


def _handshake(arguments: argparse.Namespace) -> bytes:
    return _request(
        arguments,
        "GET",
        arguments.path,
        "connection: Upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        # fastapi-reverse-proxy fails for clients that offer none; the origin chooses none.
        "sec-websocket-protocol: benchmark",
    )


def _alive(tunnels: Sequence[Tunnel]) -> list[Tunnel]:
    return [tunnel for tunnel in tunnels if tunnel.opened.done() and not tunnel.broken]


async def _echo(
    arguments: argparse.Namespace, tunnels: Sequence[Tunnel], latencies_ms: list[float]
) -> dict[str, object]:
    started = time.perf_counter()
    alive = _alive(tunnels)
    for tunnel in alive:
        tunnel.repeat = True
        tunnel.send()
    await asyncio.sleep(arguments.seconds)
    for tunnel in alive:
        tunnel.repeat = False
    await _gather([tunnel.echoed for tunnel in alive], 5)
    errors = len(tunnels) - len(_alive(tunnels))
    return _result(len(latencies_ms), time.perf_counter() - started, latencies_ms, errors)


async def _idle(arguments: argparse.Namespace, tunnels: Sequence[Tunnel]) -> dict[str, object]:
    started = time.perf_counter()
    durations_ms: list[float] = []
    await _open_tunnels(arguments, tunnels, durations_ms)
    elapsed = time.perf_counter() - started
    alive = _alive(tunnels)
    for tunnel in alive:
        tunnel.send()
    without_echo = await _gather([t.echoed for t in alive], 10)
    open_now = len(alive) - without_echo
    return _result(open_now, elapsed, durations_ms, len(tunnels) - open_now)


async def _gather(work: Sequence[object], timeout: float) -> int:
    """Await all within `timeout` seconds; gives the number that failed or did not finish."""
    if not work:
        return 0
    tasks = [asyncio.ensure_future(w) for w in work]  # type: ignore[call-overload]
    done, pending = await asyncio.wait(tasks, timeout=timeout)
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending)
    return len(pending) + sum(task.exception() is not None for task in done)


def _result(units: int, seconds: float, times_ms: list[float], errors: int) -> dict[str, object]:
    ordered = sorted(times_ms) or [0.0]
    return {
        "units": units,
        "seconds": seconds,
        "p50_ms": ordered[len(ordered) * 50 // 100],
        "p99_ms": ordered[len(ordered) * 99 // 100],
        "errors": errors,
    }


async def _main(arguments: argparse.Namespace) -> None:
    latencies_ms: list[float] = []
    tunnels: list[Tunnel] = []
    if arguments.kind in ("ws", "ws-idle"):
        head = _handshake(arguments)
        tunnels = [Tunnel(head, latencies_ms) for _ in range(arguments.connections)]
    if arguments.kind == "ws":
        await _open_tunnels(arguments, tunnels, [])
    print("ready", flush=True)
    await _wait_for_line()
    match arguments.kind:
        case "download":
            result = await _transfers(arguments, upload=False)
        case "upload":
            result = await _transfers(arguments, upload=True)
        case "sse":
            result = await _event_streams(arguments)
        case "ws":
            result = await _echo(arguments, tunnels, latencies_ms)
        case _:
            result = await _idle(arguments, tunnels)
    print(json.dumps(result), flush=True)
    await _wait_for_line()


def main() -> None:
    """Read the command line and run one load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("download", "upload", "sse", "ws", "ws-idle"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--interval", type=float, default=0.25)
    uvloop.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
