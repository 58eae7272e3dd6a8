from fastapi import FastAPI

from fastapi_proxy_di import proxy_router

app = FastAPI()
app.include_router(proxy_router("shop"), prefix="/shop")
