"""The gateway of the command `serve` for one upstream, without its access log."""

from fastapi_proxy_di import proxy_app
from fastapi_proxy_di.cli.gateway import gateway

app = gateway({"origin": proxy_app("origin")})
