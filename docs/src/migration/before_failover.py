from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi_reverse_proxy import proxy_pass

app = FastAPI()


@app.get("/{path:path}")
async def gateway(request: Request) -> Any:
    try:
        return await proxy_pass(request, "http://localhost:8080")
    except HTTPException as error:
        if error.status_code not in (502, 504):
            raise
    return await proxy_pass(request, "http://localhost:8081")
