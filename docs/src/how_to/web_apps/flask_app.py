from flask import Flask, redirect, session, url_for
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response

app = Flask(__name__)
app.secret_key = "a long random text"
# --8<-- [start:prefix]
app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
    app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_prefix=1
)
# --8<-- [end:prefix]


@app.get("/")
def home() -> dict[str, str]:
    return {"user": session.get("user", ""), "style": url_for("static", filename="style.css")}


@app.post("/login")
def login() -> Response:
    session["user"] = "ada"
    return redirect(url_for("home", _external=True))
