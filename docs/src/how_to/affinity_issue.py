import os

from fastapi import FastAPI

from fastapi_proxy_di import AffinitySettings, UpstreamSettings, proxy_router


class Tools(UpstreamSettings, name="tools"):
    affinity: AffinitySettings | None = AffinitySettings(
        header="mcp-session-id", issue=True, key=os.environ["AFFINITY_KEY"]
    )


app = FastAPI()
app.include_router(proxy_router(Tools), prefix="/tools")
