"""FastAPI, Flask and Django below a prefix, as their recipes say."""

from __future__ import annotations

import re
from http.cookies import SimpleCookie
from pathlib import Path

import pytest

from tests.web_apps.recipes import recipe

pytestmark = pytest.mark.e2e

_DJANGO = "DJANGO_SETTINGS_MODULE=shop.settings python -m django"
_ADA = "--username ada --email ada@gateway.example"
_PREPARE_DJANGO = (
    f"{_DJANGO} migrate",
    f"DJANGO_SUPERUSER_PASSWORD=s3cret {_DJANGO} createsuperuser --noinput {_ADA}",
    f"{_DJANGO} collectstatic --noinput",
)


async def test_fastapi_shows_its_documentation(tmp_path: Path) -> None:
    """`/docs` finds the schema, whose server is the prefix, and URLs lead through the gateway."""
    async with recipe("fastapi", tmp_path) as running, running.client() as client:
        page = await client.get("/shop/docs")
        (schema,) = re.findall(r"url: '([^']+)'", page.text)
        servers = (await client.get(schema)).json()["servers"]
        moved = await client.get("/shop/items")
        items = await client.get("/shop/items/")

    assert schema == "/shop/openapi.json"
    assert servers == [{"url": "/shop"}]
    assert moved.headers["location"] == f"{running.origin}/shop/items/"
    assert items.json() == {"self": f"{running.origin}/shop/items/"}


async def test_flask_writes_urls_and_cookies_below_the_prefix(tmp_path: Path) -> None:
    """ProxyFix reads the prefix and the host; the session's cookie stays with this app."""
    async with recipe("flask", tmp_path) as running, running.client() as client:
        login = await client.post("/shop/login")
        home = await client.get("/shop/")

    assert login.headers["location"] == f"{running.origin}/shop/"
    assert SimpleCookie(login.headers["set-cookie"])["session"]["path"] == "/shop"
    assert home.json() == {"user": "ada", "style": "/shop/static/style.css"}


async def test_django_admin_logs_in(tmp_path: Path) -> None:
    """The form with its CSRF token, the cookies and the admin's static files, by http and https."""
    async with recipe("django", tmp_path, *_PREPARE_DJANGO) as running:
        for scheme in ("http", "https"):
            async with running.client(scheme) as client:
                start = await client.get("/shop/admin/")
                form = await client.get(start.headers["location"])
                (token,) = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', form.text)
                (style,) = re.findall(r'href="([^"]+/base.css)"', form.text)
                fields = {"csrfmiddlewaretoken": token, "username": "ada", "password": "s3cret"}
                origin = f"{scheme}://{client.headers['host']}"
                login = await client.post(
                    start.headers["location"],
                    data={**fields, "next": "/shop/admin/"},
                    headers={"origin": origin, "referer": f"{origin}/shop/admin/login/"},
                )
                admin = await client.get("/shop/admin/")
                styles = await client.get(style)

            assert start.headers["location"] == "/shop/admin/login/?next=/shop/admin/"
            assert (login.status_code, login.headers["location"]) == (302, "/shop/admin/")
            assert {cookie.path for cookie in client.cookies.jar} == {"/shop/"}
            assert "Site administration" in admin.text
            assert style == "/shop/static/admin/css/base.css"
            assert (styles.status_code, styles.headers["content-type"][:8]) == (200, "text/css")
