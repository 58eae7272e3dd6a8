"""An old web app with sessions, redirects, a static file and a WebSocket, run as a process."""

from __future__ import annotations

from typing import Any

from quart import Quart, redirect, request, session, url_for, websocket
from quart.typing import ResponseReturnValue

app = Quart(__name__)
app.secret_key = "a secret of the old app"


@app.post("/login")
async def login() -> ResponseReturnValue:
    """Begin a session, and lead to the home page by an absolute URL."""
    session["name"] = (await request.form)["name"]
    return redirect(url_for("home", _external=True))


@app.get("/")
async def home() -> str:
    """Show whose session it is."""
    return f"legacy home of {session.get('name', 'nobody')}"


@app.get("/me")
async def me() -> ResponseReturnValue:
    """Tell the new app whose session it is."""
    return {"name": session["name"]} if "name" in session else ("", 401)


@app.route("/invoices/<int:number>", methods=["GET", "POST"])
async def invoice(number: int) -> dict[str, Any]:
    """Count differently from 100 on."""
    if request.method == "POST":
        return {"paid": number}
    return {"number": number, "total": 10 * number + (number >= 100), "by": "legacy"}


@app.get("/plain/<int:number>")
async def plain(number: int) -> str:
    """Respond with text."""
    return "not JSON"


@app.get("/invoices/new")
async def form() -> str:
    """Show a page whose path looks like that of an invoice."""
    return "legacy form"


@app.get("/style.css")
async def style() -> ResponseReturnValue:
    """Serve a file."""
    return "body {}", 200, {"content-type": "text/css"}


@app.websocket("/live")
async def live() -> None:
    """Say it again."""
    await websocket.send("legacy heard " + str(await websocket.receive()))


@app.websocket("/old")
async def old() -> None:
    """Say whose session it is."""
    await websocket.receive()
    await websocket.send(f"legacy session of {session['name']}")
