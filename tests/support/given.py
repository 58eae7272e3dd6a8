"""A gateway whose client names the destination in a header, as only a test may do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Header

from fastapi_proxy_di import Balancer, ForwardOptions
from tests.support.gateways import gateway_app
from tests.support.http_client import Client, request
from tests.support.origins import Connection, Headers, response_bytes

__all__ = ["TO", "Held", "address_of_lease", "given_app", "send_to", "to"]

TO = "x-to"


async def chosen(x_to: Annotated[str | None, Header()] = None) -> ForwardOptions:
    """Send the request where the header says, decoded as the test wrote it."""
    return ForwardOptions(destination=None if x_to is None else bytes.fromhex(x_to).decode())


def to(address: str, *headers: tuple[bytes, bytes]) -> Headers:
    """Headers of a request for an address; any character may be in it."""
    return [(TO.encode(), address.encode().hex().encode()), *headers]


def given_app(
    *destinations: str,
    origins: Sequence[str] = (),
    networks: Sequence[str] = ("127.0.0.0/8",),
    credentials: bool = False,
    **options: Any,
) -> FastAPI:
    """Build an app that sends ``/billing`` where the client says; options as `gateway_app`."""
    allowed = {"origins": origins, "networks": networks, "credentials": credentials}
    return gateway_app(
        *destinations,
        router={"options": chosen, **options.pop("router", {})},
        allowed_destinations=allowed,
        **options,
    )


async def address_of_lease(balancer: Balancer, destination: str) -> str:
    """Lease an address for a moment, and give it as the lease has it."""
    async with balancer.lease(destination=destination) as lease:
        return lease.url


class Held:
    """A script that responds once it is released."""

    def __init__(self) -> None:
        self.release = asyncio.Event()

    async def __call__(self, connection: Connection) -> None:
        while True:
            await connection.read_request()
            await self.release.wait()
            await connection.send(response_bytes(200, b"ok"))


async def send_to(client: Client, address: str, method: str = "GET") -> None:
    """Send a request for an address, without waiting for its response."""
    await client.send(request(method, "/billing/x", to(address), None))
