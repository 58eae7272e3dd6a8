"""A gateway with a status router for a server's process."""

from fastapi import Depends

from fastapi_proxy_di import status_router
from tests.integration.status_page.gateway import admin, gateway

app = gateway(status_router(actions=True), dependencies=[Depends(admin)])
