"""The status page of the how-to is guarded and acts, and its pictures are what the script takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastapi_proxy_di import Upstream
from scripts import screenshots
from tests.docs.conftest import Gateway, Snippet
from tests.support.chromium import needs_chromium
from tests.support.servers import Running

pytestmark = pytest.mark.e2e


async def test_status_page_is_guarded_and_acts(
    snippet: Snippet,
    billing: tuple[Running, Running],
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the password of the operator: the page, its data, and the action of the page's curl."""
    monkeypatch.setenv("OPERATOR_PASSWORD", "change-me")
    app = snippet("how_to/status_page.py").app
    body = {"destination": billing[0].url}
    async with gateway(app) as client:
        refused = [
            await client.get("/upstreams/"),
            await client.get("/upstreams/", auth=("operator", "wrong")),
            await client.post("/upstreams/billing/drain", json=body),
        ]
        client.auth = ("operator", "change-me")
        page = await client.get("/upstreams/")
        data = await client.get("/upstreams/status.json")
        response = await client.post("/upstreams/billing/drain", json=body)
        draining = [one.draining for one in Upstream("billing").of(app).destinations]

    assert [one.status_code for one in refused] == [401, 401, 401]
    assert billing[0].url in page.text
    assert data.json()["actions"] is True
    assert response.json()["destinations"][0]["state"] == "draining"
    assert draining == [True, False]


def size(picture: Path) -> tuple[int, int]:
    """Give width and height of a PNG."""
    head = picture.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


@pytest.mark.parametrize("name", screenshots.SHOTS)
def test_pictures_are_small(name: str) -> None:
    """Pictures are also as wide as the script makes them."""
    picture = screenshots.FOLDER / name

    assert size(picture) == screenshots.SHOTS[name][:2]
    assert picture.stat().st_size < 150_000


@pytest.mark.browser
@needs_chromium
async def test_pictures_can_be_taken(tmp_path: Path) -> None:
    """The script makes all pictures."""
    await screenshots.take(tmp_path)

    assert all(size(tmp_path / name) == one[:2] for name, one in screenshots.SHOTS.items())
