import asyncio

from fastapi_proxy_di import Balancer, UpstreamSettings


class Billing(UpstreamSettings, name="billing"):
    pass


async def main() -> None:
    async with Balancer.from_settings(Billing()) as billing:
        response = await billing.client.get("/invoices/7")
        print(response.json()["total"])


if __name__ == "__main__":
    asyncio.run(main())
