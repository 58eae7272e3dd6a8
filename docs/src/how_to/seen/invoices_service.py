from fastapi import FastAPI, Request

app = FastAPI()


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/invoices/{number}")
async def invoice(number: int, request: Request) -> dict[str, int | None]:
    return {"number": number, "total": 10 * number, "served_by": request.url.port}
