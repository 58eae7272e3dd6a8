from collections.abc import AsyncIterator

import httpx

from fastapi_proxy_di import DestinationSettings, DiscoveryError, Search


async def find(search: Search) -> AsyncIterator[list[DestinationSettings]]:
    address = search.address
    async with httpx.AsyncClient(timeout=search.timeout) as client:
        while True:
            response = await client.get(f"http://{address.host}:{address.port}{address.path}")
            if response.status_code != 200:
                raise DiscoveryError(f"the registry says {response.status_code}")
            yield [DestinationSettings(url=url) for url in response.json()]
            await search.pause(10)
