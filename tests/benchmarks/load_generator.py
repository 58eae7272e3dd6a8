"""Load generator for what wrk cannot do: large transfers, event streams, WebSocket tunnels.

Run as a process of its own, pinned beside the origin. It says `ready`, waits for a line, works,
prints its result as one JSON line, and holds its connections until the next line. Speaks HTTP and
WebSocket by hand so that it costs little; knows no contender.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Final, cast

import httptools
import uvloop

from tests.benchmarks.wire_format import (
    API_KEY,
    API_KEY_HEADER,
    EVENT_BYTES,
    MESSAGE_BYTES,
    TRANSFER_BYTES,
    event_stamp,
)

_WRITE_BYTES: Final = 256 * 1024
_OPENING_AT_ONCE: Final = 64
_OPEN_ALL_SECONDS: Final = 40.0
_TRANSFER_SECONDS: Final = 120.0
_MASK: Final = b"\x12\x34\x56\x78"
_TEXT: Final = b"m" * MESSAGE_BYTES
_ECHOED: Final = b"\x81\x7e" + MESSAGE_BYTES.to_bytes(2, "big") + _TEXT


def _masked(first_byte: int, payload: bytes) -> bytes:
    """A client frame (RFC 6455 5.2); the payload is at most 65,535 bytes long."""
    size = len(payload)
    if size > 125:
        head = bytes((first_byte, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first_byte, 0x80 | size))
    mask = _MASK * (size // 4 + 1)
    return head + _MASK + bytes(a ^ b for a, b in zip(payload, mask, strict=False))


_MESSAGE: Final = _masked(0x81, _TEXT)


class Exchange(asyncio.Protocol):
    """One HTTP request on a connection of its own; `finished` resolves when the answer ended.

    Args:
        head: Request line and header block.
        upload_bytes: Size of the body that follows it.
        events: Whether the answer is read as timestamped events.
    """

    def __init__(self, head: bytes, *, upload_bytes: int = 0, events: bool = False) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.body_bytes = 0
        self.small_body = b""
        self.delays_ms: list[float] = []
        self._head = head
        self._unsent = upload_bytes
        self._events = events
        self._partial = b""
        self._parser = httptools.HttpResponseParser(self)
        self._writable = True
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request head."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._head)
        self._send()

    def pause_writing(self) -> None:
        """Stop until the socket has room."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on with the upload."""
        self._writable = True
        self._send()

    def _send(self) -> None:
        while self._writable and self._unsent > 0:
            size = min(_WRITE_BYTES, self._unsent)
            self._unsent -= size
            self._transport.write(bytes(size))

    def data_received(self, data: bytes) -> None:
        """Feed what came."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def on_body(self, body: bytes) -> None:
        """Count the body; the parser calls it."""
        self.body_bytes += len(body)
        if self._events:
            self._read_events(body)
        elif self.body_bytes < 64:
            self.small_body += body

    def _read_events(self, body: bytes) -> None:
        now = time.monotonic_ns()
        data = self._partial + body
        complete = len(data) - len(data) % EVENT_BYTES
        for start in range(0, complete, EVENT_BYTES):
            stamp = event_stamp(data[start : start + EVENT_BYTES])
            self.delays_ms.append((now - stamp) / 1e6)
        self._partial = data[complete:]

    def on_message_complete(self) -> None:
        """Resolve `finished`; the parser calls it."""
        status = self._parser.get_status_code()
        if status != 200:
            self._fail(OSError(f"status {status}"))
        elif not self.finished.done():
            self.finished.set_result(None)
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whatever is still waited for."""
        self._fail(exc or OSError("connection closed before the end"))

    def _fail(self, error: Exception) -> None:
        if not self.finished.done():
            self.finished.set_exception(error)
        self._transport.abort()


class Tunnel(asyncio.Protocol):
    """One WebSocket that echoes in lock step; answers pings.

    Args:
        head: The handshake request.
        latencies_ms: Receives the round-trip time of each message.
    """

    def __init__(self, head: bytes, latencies_ms: list[float]) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.answered: asyncio.Future[None] = loop.create_future()
        self.broken = False
        self.repeat = False
        self._head = head
        self._latencies_ms = latencies_ms
        self._sent_at = 0.0
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request head."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._head)

    def send(self) -> None:
        """Send one message; the next follows its echo while `repeat` is set."""
        self._sent_at = time.perf_counter()
        self._transport.write(_MESSAGE)

    def data_received(self, data: bytes) -> None:
        """Feed what came."""
        self._buffer += data
        if not self.opened.done():
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self._break(f"handshake answered {head[:40]!r}")
                return
            self._buffer = rest
            self.opened.set_result(None)
        while self._next_frame():
            pass

    def _next_frame(self) -> bool:
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        if buffer[0] == 0x81:
            if len(buffer) < len(_ECHOED):
                return False
            if not buffer.startswith(_ECHOED):
                self._break("not an echo")
                return False
            self._buffer = buffer[len(_ECHOED) :]
            self._echoed()
            return True
        end = 2 + (buffer[1] & 0x7F)
        if len(buffer) < end:
            return False
        if buffer[0] != 0x89:
            self._break(f"unexpected frame {buffer[:8]!r}")
            return False
        self._transport.write(_masked(0x8A, buffer[2:end]))
        self._buffer = buffer[end:]
        return True

    def _echoed(self) -> None:
        self._latencies_ms.append((time.perf_counter() - self._sent_at) * 1e3)
        if self.repeat:
            self.send()
        elif not self.answered.done():
            self.answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whatever is still waited for."""
        self._break("connection lost")

    def _break(self, reason: str) -> None:
        self.broken = True
        for future in (self.opened, self.answered):
            if not future.done():
                future.set_exception(OSError(reason))
                # Read at once: nobody may be waiting for both.
                future.exception()
        self._transport.abort()


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


async def _run_exchange(port: int, exchange: Exchange) -> None:
    await asyncio.get_running_loop().create_connection(lambda: exchange, "127.0.0.1", port)
    await exchange.finished


async def _transfers(arguments: argparse.Namespace, *, upload: bool) -> dict[str, object]:
    if upload:
        length = f"content-length: {TRANSFER_BYTES}"
        head = _request(arguments, "POST", arguments.path, length)
    else:
        head = _request(arguments, "GET", arguments.path)
    exchanges = [
        Exchange(head, upload_bytes=TRANSFER_BYTES if upload else 0)
        for _ in range(arguments.connections)
    ]
    started = time.perf_counter()
    durations_ms: list[float] = []

    async def transfer(exchange: Exchange) -> None:
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
    exchanges = [Exchange(head, events=True) for _ in range(arguments.connections)]
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
    await _gather([tunnel.answered for tunnel in alive], 5)
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
    unanswered = await _gather([t.answered for t in alive], 10)
    open_now = len(alive) - unanswered
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
