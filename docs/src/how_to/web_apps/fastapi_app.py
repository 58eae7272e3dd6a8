from fastapi import FastAPI, Request

app = FastAPI()


@app.get("/items/")
async def items(request: Request) -> dict[str, str]:
    return {"self": str(request.url_for("items"))}
