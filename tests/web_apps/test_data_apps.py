"""Streamlit, Gradio and JupyterLab below a prefix in a browser, as their recipes say."""

from __future__ import annotations

import json
from http.cookies import SimpleCookie
from pathlib import Path

import pytest

from tests.support.chromium import needs_chromium
from tests.web_apps.page import open_page
from tests.web_apps.recipes import HOST, recipe

pytestmark = [pytest.mark.e2e, pytest.mark.browser, needs_chromium]


async def test_streamlit_runs_the_script(tmp_path: Path) -> None:
    """The page, its WebSocket, and a click that runs the script again."""
    async with (
        recipe("streamlit", tmp_path) as running,
        open_page(f"{running.origin}/shop", tmp_path / "profile", HOST) as page,
    ):
        await page.click('[data-testid="stButton"] button')
        await page.shows("The double of 1 is 2.")
        async with running.client() as client:
            health = await client.get("/shop/_stcore/health")

    assert SimpleCookie(health.headers["set-cookie"])["_streamlit_xsrf"]["path"] == "/shop"


async def test_gradio_streams_an_event(tmp_path: Path) -> None:
    """The page, an event of the queue, and its stream of server-sent events."""
    async with (
        recipe("gradio", tmp_path) as running,
        open_page(f"{running.origin}/shop", tmp_path / "profile", HOST) as page,
    ):
        await page.click("textarea")
        await page.type("hello")
        await page.click("button.primary")
        await page.until("document.querySelectorAll('textarea')[1].value === 'hello'")


async def test_jupyterlab_runs_a_cell(tmp_path: Path) -> None:
    """The login by token, a notebook, its kernel over a WebSocket, and the output of a cell."""
    cell = {"cell_type": "code", "source": "1 + 1", "metadata": {}, "outputs": []}
    notebook = {"cells": [{**cell, "execution_count": None}], "metadata": {}, "nbformat": 4}
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook["metadata"] = {"kernelspec": kernel}
    (tmp_path / "sum.ipynb").write_text(json.dumps({**notebook, "nbformat_minor": 4}))
    settings = {"ServerApp": {"allow_root": True}}
    (tmp_path / ".jupyter").mkdir()
    (tmp_path / ".jupyter/jupyter_server_config.json").write_text(json.dumps(settings))
    async with (
        recipe("jupyterlab", tmp_path) as running,
        open_page(
            f"{running.origin}/shop/lab/tree/sum.ipynb?token=s3cret", tmp_path / "profile", HOST
        ) as page,
    ):
        await page.shows("| Idle")  # the kernel
        await page.click('[data-command="notebook:run-cell-and-select-next"]')
        await page.until(
            "document.querySelector('.jp-OutputArea-output')?.innerText.trim() === '2'"
        )
