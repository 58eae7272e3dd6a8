import os

from fastapi import FastAPI

from fastapi_proxy_di import AffinitySettings, UpstreamSettings, proxy_router


class Chat(UpstreamSettings, name="chat"):
    affinity: AffinitySettings | None = AffinitySettings(
        cookie="chat_affinity", key=os.environ["CHAT_KEY"]
    )


app = FastAPI()
app.include_router(proxy_router(Chat), prefix="/chat")
