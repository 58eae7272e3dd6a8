import uvicorn
from fastapi import FastAPI

from fastapi_proxy_di import proxy_router

app = FastAPI()
app.include_router(proxy_router("billing"), prefix="/billing")

if __name__ == "__main__":
    uvicorn.run(app, timeout_graceful_shutdown=10)
